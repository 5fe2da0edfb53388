"""Times one network of a bundle in PyTorch, on the same weights and size as
net_time.c; one JSON line.

usage: torch_time.py BUNDLE STAGE REPEATS THREADS"""
import json
import os
import sys
import time

import torch
import yaml

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)
from training.bundle import load_folded  # noqa: E402
from training.nets import build  # noqa: E402


def main():
    folder, stage = sys.argv[1:3]
    repeats, threads = int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(threads)
    with open(os.path.join(folder, "bundle.yaml"), encoding="utf-8") as f:
        spec = yaml.safe_load(f)["stages"][stage]
    file = spec["files"][0]["file"] if "files" in spec else spec.get("file")
    if file:
        net = load_folded(spec["arch"], spec["params"], os.path.join(folder, file))
    else:
        net = build(spec["arch"], spec["params"], folded=True).eval()
    if spec["arch"] == "sadt":
        args = [torch.randn(1, 4, 256, 256), torch.ones(1, 1, 32, 32)]
    elif spec["arch"] == "unet25d":
        args = [torch.randn(1, spec["params"]["slices"], 288, 352)]
    else:
        args = [torch.randn(1, 1, *spec["params"]["grid"])]
    flat = args[0].dim() == 4
    best, cpu, layout = 1e300, 1e300, ""
    for name, fmt in (("plain", torch.contiguous_format),
                      ("channels last", torch.channels_last if flat else torch.channels_last_3d)):
        model = net.to(memory_format=fmt)
        x = [args[0].to(memory_format=fmt), *args[1:]]
        with torch.inference_mode():
            for _ in range(repeats):
                w, c = time.perf_counter(), time.process_time()
                model(*x)
                w, c = time.perf_counter() - w, time.process_time() - c
                if c < cpu:
                    cpu, layout = c, name
                best = min(best, w)
    print(json.dumps({"stage": stage, "ms": best * 1e3, "cpu_ms": cpu * 1e3, "layout": layout,
                      "torch": torch.__version__}))


main()
