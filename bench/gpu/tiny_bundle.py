"""A bundle of parameters for networks so small that a stand-in computes them.

usage: tiny_bundle.py DIR"""
import os
import sys

import yaml

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TINY = {
    "liver": {"widths": [8, 16], "strides": [[1, 1, 1], [1, 2, 2]], "grid": [3, 9, 10]},
    "detector": {"stacks": 1, "dims": [8, 16], "modules": [1, 1], "stem": 8,
                 "hg_strides": [[2, 2, 2]], "grid": [4, 18, 22]},
    "ksf": {"depth": 18, "width": 0.125, "D": 8, "K": 4},
    "classify": {"depth": 18, "width": 0.125, "D": 8, "K": 4},
}


def main():
    with open(os.path.join(ROOT, "models", "paper", "bundle.yaml"), encoding="utf-8") as f:
        doc = yaml.safe_load(f)
    doc["name"] = "tiny"
    for stage, params in TINY.items():
        doc["stages"][stage]["params"].update(params)
        if stage in ("ksf", "classify"):
            doc["stages"][stage]["input"].update(crop=32)
    os.makedirs(sys.argv[1], exist_ok=True)
    with open(os.path.join(sys.argv[1], "bundle.yaml"), "w", encoding="utf-8") as f:
        yaml.safe_dump(doc, f, sort_keys=False)


main()
