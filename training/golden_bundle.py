"""tests/golden/small.safetensors: the shipped networks' outputs on one phantom.

Inputs are not stored: the test renders seed SEED with `hepar-prepare --phantom
S..S+1 --what liver,detect,slices,seg` (same seed, same bytes) and runs the bundle.
Keys, p = NC A V D:
  liver.p.logit      (1, 1, 8, 16, 20): every 8th voxel of each axis, from 0
  detect.p.hm        (1, 1, 12, 22, 32): every second cell
  detect.p.scores (n), detect.p.boxes (n, 6) z1 y1 x1 z2 y2 x2 voxels: first 10 peaks
  seg.logit          (m, 1, 20, 20): every 16th pixel of each stack
  rows.boxes (m, 4), rows.mask (m, 1, g, g): crop boxes in pixels and grid masks of the
                     slice rows, CROP px of the file's own pixels (not the stage's
                     spacing: arithmetic is compared here) from round(centre - CROP / 2)
  ksf.logit (m, 2), cls{0-4}.logit (m, 4)
Metadata: `seed`, `bundle` (sha256 of bundle.yaml), `inputs` (sha256 over the bytes of
`hu` of liver, detect, seg, slices): a phantom that draws other bytes needs new outputs.
"""
import hashlib
import os

import torch
import yaml
from safetensors.torch import save_file

from . import bundle, data, decode, steps
from .nets.sadt import grid_mask

SEED = 400
CROP = steps.CROP


def nets_of(stage, folder):
    """As the folder's own bundle.yaml says: the presets here may have moved on."""
    with open(os.path.join(folder, "bundle.yaml"), encoding="utf-8") as f:
        spec = yaml.safe_load(f)["stages"][stage]
    return [bundle.load_folded(spec["arch"], spec["params"], os.path.join(folder, e["file"]))
            for e in spec.get("files", [spec])]


def make(folder, files):
    """files(what) -> data.Files. All in fp32, as the C side computes."""
    out = {}
    with files("liver").open(SEED) as f:
        hu = f.get_tensor("hu")
        net = nets_of("liver", folder)[0]
        # four at a time: fp32 3D convolutions of batch 1 take ATen's slow path
        logit = net(data.window(hu, bundle.INPUT)[:, None])["logit"]
        for p, name in enumerate(bundle.PHASES):
            out[f"liver.{name}.logit"] = logit[p:p + 1, :, ::8, ::8, ::8]
    with files("detect").open(SEED) as f:
        hu = f.get_tensor("hu")
        net = nets_of("detector", folder)[0]
        r = net(data.window(hu)[:, None])
        for p, name in enumerate(bundle.PHASES):
            scores, boxes = decode.decode(r["hm"][p], r["whd"][p], r["off"][p], net.stride)
            out[f"detect.{name}.hm"] = r["hm"][p:p + 1, :, ::2, ::2, ::2]
            out[f"detect.{name}.scores"], out[f"detect.{name}.boxes"] = scores[:10], boxes[:10]
    with files("seg").open(SEED) as f:
        net = nets_of("keyslice", folder)[0]
        out["seg.logit"] = net(data.window(f.get_tensor("hu")))["logit"][..., ::16, ::16]
    with files("slices").open(SEED) as f:
        pairs = [data.patch_sample(hu, rect, None, CROP)
                 for hu, rect in zip(f.get_tensor("hu"), f.get_tensor("rect"))]
    x, boxes = torch.stack([p[0] for p in pairs]), [p[1] for p in pairs]
    mask = grid_mask(boxes, (CROP, CROP))
    out["rows.boxes"], out["rows.mask"] = torch.tensor(boxes), mask
    out["ksf.logit"] = nets_of("ksf", folder)[0](x, mask)["logit"]
    for k, net in enumerate(nets_of("classify", folder)):
        out[f"cls{k}.logit"] = net(x, mask)["logit"]
    return {k: v.detach().float().contiguous() for k, v in out.items()}


def inputs_digest(files):
    h = hashlib.sha256()
    for what in ("liver", "detect", "seg", "slices"):
        with files(what).open(SEED) as f:
            h.update(f.get_tensor("hu").contiguous().numpy().tobytes())
    return h.hexdigest()


def write(folder, files, path):
    with torch.no_grad():
        tensors = make(folder, files)
    save_file(tensors, path + ".part", metadata={
        "seed": str(SEED), "inputs": inputs_digest(files),
        "bundle": bundle.sha256_file(os.path.join(folder, "bundle.yaml"))})
    os.chmod(path + ".part", 0o644)
    os.replace(path + ".part", path)
    print(f"golden {path} {os.path.getsize(path)} bytes", flush=True)
