"""Writes a model bundle: folded weights in fp16, bundle.yaml with hashes.

The exporter folds batch norm in fp64, rounds to the stored dtype and reads the
rounded file again, so that whatever is measured afterwards is what ships.
"""
import hashlib
import json
import os

import torch
import yaml
from safetensors.torch import load_file, save_file

from .nets import build, fold

F16_LIMIT = 16384.  # an activation beyond this marks the network bf16
PHASES = ["NC", "A", "V", "D"]
CLASSES = [
    {"id": "hcc", "label": "HCC", "code": ["25370001", "SCT", "Hepatocellular carcinoma"]},
    {"id": "icc", "label": "ICC", "code": ["70179006", "SCT", "Cholangiocarcinoma"]},
    {"id": "benign", "label": "benign", "code": ["30807003", "SCT", "Benign"]},
    {"id": "metastasis", "label": "metastasis", "code": ["14799000", "SCT", "Neoplasm, Secondary"]},
]
INTENDED_USE = "Research use only. Trained on synthetic phantoms."
INPUT = {"window": [-175, 275], "mean": 0.5, "std": 0.25, "pad_hu": -1024}
# Lesions differ from liver by 10 to 30 HU: the wide window leaves them a tenth of a
# standard deviation of the whole picture. The paper names no window.
LESION_INPUT = dict(INPUT, window=[-50, 200])
# SaDT sees 1.4 mm pixels: noise is a quarter in variance, a step costs a quarter, and
# with some hundred patients the 0.7 mm network of the specification memorised them
# (docs/bundle-small.md). models/paper keeps 0.7 mm.
PATCH = dict(LESION_INPUT, spacing_mm=1.4, crop=128, ring_px=8)
HG_STRIDES = [[1, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2]]
PLAN_B = {"stem_kernel": [3, 7, 7], "stem_stride": [1, 2, 2], "res_stride": [2, 2, 2],
          "hg_strides": HG_STRIDES, "grid": [48, 176, 256]}
UNET_STRIDES = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2]]

SMALL = {
    "liver": {"arch": "unet3d", "files": ["liver"], "input": INPUT,
              # 8 channels at full resolution: a third of the step of (16, 32, 48, 64, 96)
              "params": {"widths": [8, 16, 32, 64, 96], "strides": UNET_STRIDES,
                         "grid": [64, 128, 160], "spacing_mm": [4, 3, 3]},
              "rest": {"threshold": 0.5}},
    "detector": {"arch": "hourglass3d", "files": ["detector"], "input": LESION_INPUT,
                 "params": {"stacks": 1, "dims": [16, 24, 32, 48, 64, 64],
                            "modules": [1, 1, 1, 1, 1, 2], "stem": 16, **PLAN_B},
                 "rest": {"crop_margin_mm": [5, 10, 10], "topk": 100, "score_min": 0.01,
                          "report_min": 0.3, "nms_iou": 0.3, "keep": 10}},
    "keyslice": {"arch": "unet25d", "files": ["seg25d"], "input": LESION_INPUT,
                 "params": {"slices": 9, "interval_mm": 2, "spacing_mm": 0.8,
                            "widths": [16, 32, 64, 128, 128]},
                 "rest": {"phases": ["V"], "threshold": 0.5}},
    "ksf": {"arch": "sadt", "files": ["ksf"], "input": PATCH,
            "params": {"depth": 18, "width": 0.25, "output_stride": 8, "D": 64, "K": 16,
                       "classes": 2, "mask_input": False},
            "rest": {"threshold": 0.5}},
    "classify": {"arch": "sadt", "files": ["cls0", "cls1", "cls2", "cls3", "cls4"],
                 "input": PATCH,
                 "params": {"depth": 18, "width": 0.25, "output_stride": 8, "D": 64, "K": 16,
                            "classes": 4, "mask_input": False},
                 "rest": {"vote": "majority", "temperature": 1.0}},
}
# The paper's widths (Hourglass-104, ResNet-50 at stride 8): parameters only, for sites.
WIDE = {"window": INPUT["window"]}
PAPER_PATCH = {**WIDE, "spacing_mm": 0.7, "crop": 256, "ring_px": 16}
PAPER = {
    "liver": {"params": {"widths": [16, 32, 64, 96, 128]}},
    "detector": {"params": {"stacks": 2, "dims": [256, 256, 384, 384, 384, 512],
                            "modules": [2, 2, 2, 2, 2, 4], "stem": 128}, "input": WIDE},
    "keyslice": {"input": WIDE},
    "ksf": {"params": {"depth": 50, "width": 1, "D": 128, "K": 32}, "input": PAPER_PATCH},
    "classify": {"params": {"depth": 50, "width": 1, "D": 128, "K": 32}, "input": PAPER_PATCH},
}


def sha256_file(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def stored(state, dtype=torch.float16):
    """What the bundle keeps: weights and codewords rounded, bias and scale in fp32."""
    return {k: v.contiguous() if k.endswith((".bias", ".scale")) else v.to(dtype).contiguous()
            for k, v in state.items()}


def write_weights(state, path, dtype=torch.float16):
    tensors = stored(state, dtype)
    for key, t in tensors.items():
        if not torch.isfinite(t.float()).all():
            raise ValueError(f"{path}: {key} is not finite in {dtype}")
    save_file(tensors, path)
    os.chmod(path, 0o644)
    return sha256_file(path)


def load_folded(arch, params, path):
    """The network as the C side sees it: the rounded file, in fp32."""
    net = build(arch, params, folded=True)
    net.load_state_dict({k: v.float() for k, v in load_file(path).items()}, strict=True)
    return net.eval()


class Peak:
    """Largest |activation| over every convolution's output, while it is attached."""

    def __init__(self, net):
        self.value = 0.
        self.hooks = [m.register_forward_hook(self.see) for m in net.modules()
                      if not list(m.children())]

    def see(self, _module, _inputs, out):
        if isinstance(out, torch.Tensor):
            self.value = max(self.value, float(out.abs().max()))

    def remove(self):
        for h in self.hooks:
            h.remove()


def write_bundle(folder, stages, states, provenance, act_max=None, name="small",
                 version="2026.1.0", preset="small"):
    """states: {file stem: folded state_dict}; act_max: {stage: float}."""
    os.makedirs(folder, exist_ok=True)
    doc = {"schema": 1, "name": name, "version": version, "preset": preset,
           "intended_use": INTENDED_USE, "phases": PHASES, "classes": CLASSES, "stages": {}}
    for stage, spec in stages.items():
        peak = float((act_max or {}).get(stage, 0.))
        files = []
        dtype = torch.bfloat16 if peak > F16_LIMIT else torch.float16
        for stem in spec["files"]:
            path = os.path.join(folder, stem + ".safetensors")
            digest = write_weights(states[stem], path, dtype)
            load_folded(spec["arch"], spec["params"], path)
            files.append({"file": stem + ".safetensors", "sha256": digest})
        entry = {"arch": spec["arch"]}
        if spec["arch"] == "sadt":
            entry["files"] = files
        else:
            entry.update(files[0])
        entry["dtype"] = "bf16" if dtype == torch.bfloat16 else "f16"
        if peak:
            entry["act_max"] = round(peak, 2)
        entry.update(params=spec["params"], input=spec["input"], **spec["rest"])
        doc["stages"][stage] = entry
    doc["provenance"] = provenance
    write_yaml(doc, os.path.join(folder, "bundle.yaml"))
    return doc


def write_paper(folder):
    """models/paper: the full-width parameters, without weights."""
    doc = {"schema": 1, "name": "paper", "version": "2026.1.0", "preset": "paper",
           "intended_use": "Research use only. Parameters without weights: train them at your site.",
           "phases": PHASES, "classes": CLASSES, "stages": {}}
    for stage, change in PAPER.items():
        spec = SMALL[stage]
        doc["stages"][stage] = {"arch": spec["arch"],
                                "params": {**spec["params"], **change.get("params", {})},
                                "input": {**spec["input"], **change.get("input", {})},
                                **spec["rest"]}
    os.makedirs(folder, exist_ok=True)
    write_yaml(doc, os.path.join(folder, "bundle.yaml"))


def write_yaml(doc, path):
    """Nested lists and codes stay on one line: the file is meant to be read."""
    class Dumper(yaml.SafeDumper):
        def increase_indent(self, flow=False, indentless=False):
            return super().increase_indent(flow, False)

    def sequence(dumper, data):
        flow = not any(isinstance(x, dict) for x in data)
        return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flow)

    Dumper.add_representer(list, sequence)
    Dumper.ignore_aliases = lambda self, data: True
    with open(path + ".part", "w", encoding="utf-8") as f:
        yaml.dump(json.loads(json.dumps(doc)), f, Dumper=Dumper, sort_keys=False, width=110)
    os.replace(path + ".part", path)


def random_states(stages, seed=1):
    """Seeded weights for a bundle without files (inference/weights.h): finite in fp16 at any width."""
    torch.manual_seed(seed)
    states = {}
    for spec in stages.values():
        for stem in spec["files"]:
            net = build(spec["arch"], spec["params"])
            with torch.no_grad():
                for name, p in net.named_parameters():
                    if ".skip.weight" in name:
                        p.mul_(.7)
                    elif name.endswith("conv2.weight") and not name.startswith("head"):
                        p.mul_(.25)
                    elif name == "head.hm.conv2.bias":
                        p.fill_(-2.19)
            states[stem] = fold(net)
    return states
