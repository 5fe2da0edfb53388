"""The page of bench/gpu.sh from what its steps left: whatever is there is shown.

usage: table.py RESULTS OUT"""
import json
import os
import re
import sys

# Aims of the design: full-width detector, four phases.
AIM_MS, AIM_OF_TORCH = 60, 0.9
AIM_PIPELINE_MS = 1000


def lines(path):
    try:
        with open(path, encoding="utf-8") as f:
            return [json.loads(x) for x in f if x.startswith("{")]
    except OSError:
        return []


def rows(path):
    try:
        with open(path, encoding="utf-8") as f:
            return [x.rstrip("\n").split("\t") for x in f]
    except OSError:
        return []


def number(v, digits=2):
    return "-" if v is None else f"{v:.{digits}f}"


def table(head, body):
    return ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head),
            *("| " + " | ".join(str(c) for c in row) + " |" for row in body), ""]


class Page:
    def __init__(self, folder):
        self.folder = folder
        self.versions = (lines(self.at("versions.json")) or [{}])[0]
        rates = lines(self.at("rates.jsonl"))
        self.tflops = {r["precision"]: r["tflops"] for r in rates if r.get("rate") == "matmul"}
        self.size = next((r["size"] for r in rates if r.get("rate") == "matmul"), 0)
        self.gbps = next((r["gbps"] for r in rates if r.get("rate") == "copy"), None)
        for r in rates:
            self.versions.update(r.get("versions") or {}, device=self.versions.get("device"))
        self.nets = lines(self.at("nets.jsonl"))
        self.torch = lines(self.at("torch.jsonl"))
        self.plans = {p: {r[0]: (float(r[1]), r[2]) for r in rows(self.at(f"plans-{p}.txt"))
                          if len(r) > 2} for p in ("fp16", "bf16")}

    def at(self, name):
        return os.path.join(self.folder, name)

    def floor_ms(self, gflop, precision):
        rate = self.tflops.get(precision)
        return gflop / rate if rate else None

    # ---- sections -----------------------------------------------------------

    def head(self):
        v = self.versions
        yield f"# Networks on a GPU: {v.get('device', 'unknown')}, {v.get('date', '')}".rstrip(", ")
        yield ""
        yield ("`bench/gpu.sh` wrote this page; one run, everything side by side. " +
               ", ".join(f"{k} {v[k]}" for k in ("driver", "sm", "memory", "cuda", "cudnn", "torch",
                                                 "torch_cuda", "torch_cudnn", "cores", "commit")
                         if v.get(k) is not None) + ".")
        yield ""
        if self.tflops:
            yield (f"Measured in the same run: matrix product of {self.size}, " + ", ".join(
                f"{p} {t:.0f} TFLOP/s" for p, t in self.tflops.items()) +
                (f"; copy {self.gbps:.0f} GB/s, read and written" if self.gbps else "") +
                ". A floor is a network's convolutions at that rate.")
            yield ""

    def steps(self):
        body = [(n, {"0": "done", "late": "not reached, the time was up", "124": "cut off by its time",
                     "137": "cut off by its time", "77": "skipped"}.get(rc, f"failed ({rc})"), s)
                for n, rc, s in rows(self.at("steps.tsv"))]
        if body:
            yield from ["## Steps", "", *table(("step", "result", "s"), body)]

    def operators(self):
        tests = lines(self.at("operators.json"))
        if tests:
            yield from ["## Kernels and golden tensors", "",
                        "The kernels against their C twins, the networks against PyTorch's golden tensors.", "",
                        *table(("test", "result", "s"),
                               [(t["name"].split(" / ")[-1], t["result"], number(t["duration"], 1)) for t in tests])]
        checks = rows(self.at("sanitizer.tsv"))
        if checks:
            yield from ["## compute-sanitizer", "",
                        *table(("tool", "program", "exit", "its words"), checks)]

    def right(self):
        body = []
        for n in self.nets:
            verdict = n["error"] if "error" in n else "agrees"
            body.append((n["bundle"], n["stage"], n["precision"], n["batch"],
                         f"{n['worst_rms']:.1e}" if "worst_rms" in n else "-", n.get("worst_stage", "-"),
                         f"{n['tolerance']:.0e}" if "tolerance" in n else "-", verdict))
        if body:
            yield from ["## CUDA beside the CPU back end", "",
                        "Every named stage and output, fp32 on the CPU; the root mean square of the difference"
                        " as a part of the values' own.", "",
                        *table(("bundle", "network", "type", "batch", "worst", "where", "may be", ""), body)]

    def best_torch(self, n):
        """PyTorch's fastest variant that ran all its convolutions in cuDNN, as (ms, host_ms, name)."""
        found = [(t["ms"], t["host_ms"], t["variant"]) for t in self.torch
                 if t["bundle"] == n["bundle"] and t["stage"] == n["stage"] and "ms" in t
                 and t["precision"] in (n["precision"], "fp32") and t["batch"] == n["batch"]
                 and self.in_cudnn(t)]
        return min(found, default=None)

    @staticmethod
    def in_cudnn(t):
        # torch.compile may make a matrix product of a 1x1x1 convolution
        return not t["elsewhere"] and t["in_cudnn"] > 0 or t["precision"] == "fp32"

    def fast(self):
        body = []
        for n in self.nets:
            if "ms" not in n:
                continue
            floor, best = self.floor_ms(n["gflop"], n["precision"]), self.best_torch(n)
            rate = self.tflops.get(n["precision"])
            body.append((n["bundle"], n["stage"], n["precision"], n["batch"], number(n["gflop"], 0),
                         number(floor), number(n["ms"]), number(n["ms_best"]),
                         number(n["gflop"] / n["ms"], 1),
                         f"{100 * n['gflop'] / n['ms'] / rate:.0f} %" if rate else "-",
                         number(n.get("peak_mib"), 0), number(n.get("serving_mib"), 0),
                         number(n["ready_ms"] / 1e3, 1),
                         f"{number(best[0])} / {number(best[1])} ({best[2]})" if best else "-",
                         number(n["ms"] / best[0]) if best else "-"))
        if body:
            yield from ["## Time", "",
                        "ms: the median of whole runs, floats on the host to floats on the host. PyTorch's best has"
                        " two: the device alone, and host to host; the ratio is against the first. Memory is the"
                        " device's, with the driver's own share; ready: plans searched or remembered, weights sent,"
                        " the first run.", "",
                        *table(("bundle", "network", "type", "batch", "GFLOP", "floor ms", "ms", "best", "TFLOP/s",
                                "of matmul", "peak MiB", "serving MiB", "ready s", "PyTorch ms", "ratio"), body)]

    def theirs(self):
        body = [(t["bundle"], t["stage"], t["variant"], t["precision"], number(t.get("ms")),
                 number(t.get("host_ms")), number(t.get("peak_mib"), 0), number(t.get("device_mib"), 0),
                 number(t.get("first_s"), 1),
                 t["error"] if "error" in t else f"{t['in_cudnn']} of {t['convolutions']}" +
                 ("" if not t["elsewhere"] else ", elsewhere " + json.dumps(t["elsewhere"])),
                 f"{t['distance']:.1e}" if "distance" in t else "-") for t in self.torch]
        if body:
            yield from ["## PyTorch", "",
                        "channels last, cudnn.benchmark, the same weights and inputs; what the profiler saw; how far"
                        " its outputs are from hepar's.", "",
                        *table(("bundle", "network", "variant", "type", "ms", "host ms", "peak MiB", "device MiB",
                                "first s", "convolutions in cuDNN", "away"), body)]

    def offenders(self):
        for n in self.nets:
            rate = self.tflops.get(n["precision"])
            if n["bundle"] != "paper" or n["precision"] != "fp16" or "layers" not in n:
                continue
            layers = {}
            for x in n["layers"]:
                count, gflop = layers.get(x["key"], (0, x["gflop"]))
                layers[x["key"]] = (count + 1, gflop)
            known = [(key, count, gflop, *self.plans["fp16"][key])
                     for key, (count, gflop) in layers.items() if key in self.plans["fp16"]]
            if not known:
                continue
            floor = (lambda g: g / rate * 1e3) if rate else (lambda g: 0)
            lost = sorted(known, key=lambda k: k[1] * (k[3] - floor(k[2])), reverse=True)
            total = sum(c * us for _, c, _, us, _ in known)
            yield from [f"## Layers of paper/{n['stage']} that lose most", "",
                        f"Each convolution as it was timed when its plan was chosen, alone: {total / 1e3:.1f} ms in all.",
                        "", *table(("layer", "times", "us", "floor us", "lost ms in all", "engine"),
                                   [(f"`{k}`", c, number(us, 1), number(floor(g), 1),
                                     number(c * (us - floor(g)) / 1e3), e) for k, c, g, us, e in lost[:8]])]

    def aims(self):
        for n in self.nets:
            if (n["bundle"], n["stage"], n["precision"]) != ("paper", "detector", "fp16") or "ms" not in n:
                continue
            best = self.best_torch(n)
            yield from ["## Aims", "",
                        f"- full-width detector, four phases: {n['ms']:.1f} ms, aim {AIM_MS} ms: "
                        + ("met" if n["ms"] <= AIM_MS else "not met"),
                        f"- {n['ms'] / best[0]:.2f} of PyTorch's best with its convolutions in cuDNN, aim "
                        f"{AIM_OF_TORCH}: " + ("met" if n["ms"] <= AIM_OF_TORCH * best[0] else "not met")
                        if best else "- no PyTorch beside it in this run", ""]

    def pipeline(self):
        studies = lines(self.at("pipeline.jsonl"))
        if studies:
            yield from ["## A study's whole way", "",
                        "A phantom of 4 x 60 slices, bundle small, least of 5; the first also searches plans "
                        f"and sets up. Aim: less than {AIM_PIPELINE_MS} ms without registration.", ""]
            names = list(studies[0]["stages_ms"])
            yield from table(["device", "first, ms", "ms", "without registration", *names],
                             [[s["device"], s["first_ms"], s["ms"],
                               s["ms"] - s["stages_ms"].get("register", 0),
                               *(s["stages_ms"].get(n, "-") for n in names)] for s in studies])

    def text(self):
        parts = (self.head, self.aims, self.fast, self.pipeline, self.theirs, self.offenders, self.right, self.operators,
                 self.steps)
        return "\n".join(line for part in parts for line in part()).rstrip() + "\n"


def main():
    page = Page(sys.argv[1])
    name = re.sub(r"[^a-z0-9]+", "-", page.versions.get("device", "unknown").lower()).strip("-")
    path = os.path.join(sys.argv[2], f"gpu-{name}.md")
    with open(path + ".part", "w", encoding="utf-8") as f:
        f.write(page.text())
    os.replace(path + ".part", path)


main()
