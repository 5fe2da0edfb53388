"""From checkpoints to a bundle folder, with act_max and provenance."""
import hashlib
import json
import os
import subprocess

import torch
import yaml
from safetensors.torch import load_file

from . import bundle, data, steps
from .nets import build, fold
from .nets.sadt import grid_mask

CHECKPOINT = {"liver": "liver", "detector": "detector", "seg25d": "keyslice", "ksf": "ksf",
              **{f"cls{i}": f"cls{i}" for i in range(5)}}
# What went on from a bundle is exported between the two: this share is the new weights'.
# On unseen patients that is better than either (docs/adr/0015).
NEW_SHARE = {"detector": .5, "ksf": .7, **{f"cls{i}": .6 for i in range(5)}}
PEAK_STUDIES = int(os.environ.get("HEPAR_PEAK_STUDIES", "32"))
HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def training_of(folder):
    """What a bundle says about its training."""
    with open(os.path.join(folder, "metrics.json"), encoding="utf-8") as f:
        return json.load(f).get("training", {})


def of_bundle(folder, stem):
    """A network of another bundle as it is."""
    tensors = load_file(os.path.join(folder, stem + ".safetensors"))
    return {k: v.float() for k, v in tensors.items()}


def calibrate(states, args):
    """--size-gain and --class-logits, written into the last layers."""
    if args.size_gain != 1:
        for key in ("head.whd.conv2.weight", "head.whd.conv2.bias"):
            states["detector"][key] = states["detector"][key] * args.size_gain
    if args.class_logits:
        add = torch.tensor([float(v) for v in args.class_logits.split(",")])
        for stem in bundle.SMALL["classify"]["files"]:
            states[stem]["fc.bias"] = states[stem]["fc.bias"] + add
    return {"size_gain": args.size_gain, "class_logits": args.class_logits or "0,0,0,0"}


def trained_states(run, allow_missing, before):
    """{file stem: folded weights}, and what is known about each training; `before` that
    of the bundle it started from."""
    random_states = bundle.random_states(bundle.SMALL) if allow_missing else {}
    states, history = {}, {}
    for spec in bundle.SMALL.values():
        for stem in spec["files"]:
            path = os.path.join(run.work, CHECKPOINT[stem] + ".pt")
            if not os.path.exists(path) and run.start:
                states[stem] = of_bundle(run.start, stem)
                history[stem] = before.get("networks", {}).get(stem, {})
                continue
            if not os.path.exists(path):
                if not allow_missing:
                    raise SystemExit(f"export: {path} is missing; train it or --allow-missing")
                states[stem], history[stem] = random_states[stem], {"kind": "random"}
                continue
            c = torch.load(path, weights_only=False)
            net = build(spec["arch"], spec["params"]).eval()
            net.load_state_dict(c["net"])
            states[stem] = fold(net)
            valid = [e["valid"] for e in c["log"] if e.get("valid")]
            history[stem] = {"minutes": round(c["spent_s"] / 60, 1), "steps": c["step"],
                             "skipped": c["skipped"], "validation": valid[-1] if valid else None}
            if run.start:
                old = of_bundle(run.start, stem)
                history[stem]["before"] = before.get("networks", {}).get(stem, {})
                share = NEW_SHARE.get(stem, 1.)
                states[stem] = {k: share * v + (1 - share) * old[k] for k, v in states[stem].items()}
    return states, history


def peaks(run, folder):
    """Largest activation of every rounded network over up to 32 phantoms."""
    out = {}
    for stage, spec in bundle.SMALL.items():
        what = {"liver": "liver", "detector": "detect", "keyslice": "seg"}.get(stage, "slices")
        files = run.files(what, lambda s: s < 100_000)
        nets = [bundle.load_folded(spec["arch"], spec["params"],
                                   os.path.join(folder, stem + ".safetensors"))
                for stem in spec["files"]]
        watch = [bundle.Peak(net) for net in nets]
        for i, seed in enumerate(files.list()[:PEAK_STUDIES]):
            with files.open(seed) as f:
                hu = f.get_slice("hu")
                x = data.window(hu[i % 4 if what in ("liver", "detect") else 0], spec["input"])
                if what == "slices":
                    x, box = data.patch_sample(data.coarser(hu[0], steps.POOL),
                                               f.get_slice("rect")[0] / steps.POOL, None, steps.CROP)
            # fp32 3D convolution with batch 1 takes a slow path in ATen; bf16 does not
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16,
                                                 enabled=what in ("liver", "detect")):
                if what == "slices":
                    for net in nets:
                        net(x[None], grid_mask([box], x.shape[1:]))
                else:
                    nets[0](x[None] if what == "seg" else x[None, None])
        out[stage] = max(w.value for w in watch)
        for w in watch:
            w.remove()
    return out


def generator_sha256():
    """Hash over the phantom's and prepare's sources: what drew the training data."""
    h = hashlib.sha256()
    for folder in ("tests/phantom", "daemon"):
        path = os.path.join(HERE, folder)
        for name in sorted(os.listdir(path)):
            if name.endswith((".c", ".h")) and (folder != "daemon" or name.startswith("prepare")):
                with open(os.path.join(path, name), "rb") as f:
                    h.update(name.encode() + b"\0" + f.read())
    return h.hexdigest()


def commit():
    r = subprocess.run(["git", "-C", HERE, "rev-parse", "HEAD"], capture_output=True, text=True)
    return r.stdout.strip() or "0" * 40


def export(run, folder, args, allow_missing=False):
    before = training_of(run.start) if run.start else {}
    states, history = trained_states(run, allow_missing, before)
    calibration = calibrate(states, args)
    seeds = sorted({s for what in ("liver", "detect", "seg", "slices")
                    for s in run.files(what, lambda s: s < 100_000).list()}) or [0]
    provenance = {"training": {"kind": "phantom", "seeds": [seeds[0], seeds[-1]],
                               "generator_sha256": generator_sha256()},
                  "torch": torch.__version__, "commit": commit(), "metrics_file": "metrics.json"}
    if any(h.get("kind") == "random" for h in history.values()):
        print("export: random weights for",
              *[k for k, h in history.items() if h.get("kind") == "random"], flush=True)
    bundle.write_bundle(folder, bundle.SMALL, states, provenance)
    act_max = peaks(run, folder)
    if run.start:  # what was taken over has been seen on other studies too
        with open(os.path.join(run.start, "bundle.yaml"), encoding="utf-8") as f:
            stages = yaml.safe_load(f)["stages"]
        for stage, spec in bundle.SMALL.items():
            if not any(os.path.exists(os.path.join(run.work, CHECKPOINT[s] + ".pt"))
                       for s in spec["files"]):
                act_max[stage] = max(act_max[stage], stages[stage].get("act_max", 0.))
    bundle.write_bundle(folder, bundle.SMALL, states, provenance, act_max)
    path = os.path.join(folder, "metrics.json")
    doc = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            doc = json.load(f)
    doc["training"] = {"networks": history, "studies": {
        what: len(run.files(what, lambda s: True).list())
        for what in ("liver", "detect", "seg", "slices", "primaries", "candidates")}}
    doc["training"]["calibration"] = calibration
    if run.start:
        doc["training"]["studies_before"] = [*before.get("studies_before", []),
                                             before.get("studies", {})]
    with open(path, "w", encoding="utf-8") as f:
        json.dump(doc, f, indent=1)
        f.write("\n")
    size = sum(os.path.getsize(os.path.join(folder, n)) for n in os.listdir(folder))
    print(f"export: {folder} {size / 1e6:.1f} MB act_max "
          + " ".join(f"{k}={v:.1f}" for k, v in act_max.items()), flush=True)
