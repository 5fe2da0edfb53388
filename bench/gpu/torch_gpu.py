"""PyTorch's time for one network, on the weights and inputs that net_gpu handed over.

usage: torch_gpu.py BUNDLE STAGE PATH [--device cuda|cpu] [--precision fp16|bf16|fp32]
                    [--repeats N] [--variants eager,compile]
       torch_gpu.py --rates [--device cuda|cpu] [--size N]

One JSON line for each variant, as soon as it is known: eager and torch.compile,
each queued by Python and replayed as a CUDA graph; channels last, cudnn.benchmark.
`ms` is the device alone (inputs there already), `host_ms` floats on the host to
floats on the host, as hepar's runs are timed. Every convolution must have run in cuDNN,
as the profiler sees it; a row that fails that says so in `elsewhere`.

--rates: the device's matrix rate (TFLOP/s) and copy rate (GB/s), what floors are
computed from. On a CPU it only proves itself.
"""
import argparse
import json
import os
import sys
import time
import warnings

import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import load_file

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)
from training.nets import Conv, build  # noqa: E402
from training.nets.layers import Up  # noqa: E402

TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
WARM_UP = 3


def say(**line):
    print(json.dumps(line), flush=True)


class Clock:
    """Milliseconds of one call: device events, or the host's clock on a CPU."""

    def __init__(self, device):
        self.cuda = device.type == "cuda"

    def sync(self):
        if self.cuda:
            torch.cuda.synchronize()

    def device_ms(self, call):
        if not self.cuda:
            return self.host_ms(call)
        a, b = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        a.record()
        call()
        b.record()
        self.sync()
        return a.elapsed_time(b)

    def host_ms(self, call):
        self.sync()
        start = time.perf_counter()
        call()
        self.sync()
        return (time.perf_counter() - start) * 1e3

    def median(self, watch, call, repeats):
        for _ in range(WARM_UP):
            call()
        return sorted(watch(call) for _ in range(repeats))[repeats // 2]


def rates(args, device):
    clock, n = Clock(device), args.size
    for name in ("fp16", "bf16"):
        a, b = (torch.randn(n, n, device=device).to(TYPES[name]) for _ in range(2))
        ms = clock.median(clock.device_ms, lambda a=a, b=b: a @ b, 20)
        say(rate="matmul", precision=name, size=n, ms=ms, tflops=2e-9 * n ** 3 / ms)
    a = torch.empty(n * n * 16, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    ms = clock.median(clock.device_ms, lambda: b.copy_(a), 20)
    say(rate="copy", ms=ms, gbps=2e-6 * a.numel() / ms)


def versions(device):
    cuda = device.type == "cuda"
    say(versions={"torch": torch.__version__, "torch_cuda": torch.version.cuda,
                  "torch_cudnn": torch.backends.cudnn.version() if cuda else None,
                  "device": torch.cuda.get_device_name() if cuda else "cpu"})


# ---- the network ------------------------------------------------------------

def prepared_up(up, layout):
    """The transposed convolution's weight as torch wants it, once instead of each time."""
    nd = up.nd
    w = up.weight.detach().reshape(*up.stride, up.cout, -1)
    w = w.permute(nd + 1, nd, *range(nd)).contiguous(memory_format=layout)
    deconv = F.conv_transpose3d if nd == 3 else F.conv_transpose2d
    return lambda x: F.relu(deconv(x, w, up.bias, up.stride))


def load(args, device):
    """(network, inputs on the host as C had them, C's outputs, memory layout)."""
    with open(os.path.join(args.bundle, "bundle.yaml"), encoding="utf-8") as f:
        spec = yaml.safe_load(f)["stages"][args.stage]
    net = build(spec["arch"], spec["params"], folded=True).eval()
    net.load_state_dict(load_file(args.path + ".weights.safetensors"), strict=True)
    io = load_file(args.path + ".io.safetensors")
    flat = spec["arch"] in ("sadt", "unet25d")
    layout = torch.channels_last if flat else torch.channels_last_3d
    net = net.to(device=device, dtype=TYPES[args.precision], memory_format=layout)
    if spec["arch"] == "sadt":  # the texture encoding is in fp32 on both sides
        net.encode.float()
        net.fc.float()
    for m in net.modules():
        if isinstance(m, Up):
            m.forward = prepared_up(m, layout)
    x = [io[f"input.{i}"] for i in range(sum(k.startswith("input.") for k in io))]
    # (N, D, H, W, C) to channels first; the memory stays channels last
    x = [t.permute(0, 4, 1, 2, 3) for t in x]
    x = [t[:, :, 0] if flat else t for t in x]
    if spec["arch"] == "sadt" and spec["params"].get("mask_input"):
        x = [x[0][:, :-1], x[1], x[0][:, -1:]]
    want = {k[7:]: v for k, v in io.items() if k.startswith("output.")}
    return net, x, want, layout


def distance(got, want):
    """Root mean square away from C's outputs, relative; the worst of the outputs."""
    worst = 0.
    for name, b in want.items():
        a = got[name].float().cpu()
        if a.dim() > 2:
            a = a.movedim(1, -1)
        a, b = a.reshape(-1), b.reshape(-1)
        worst = max(worst, float((a - b).norm() / b.norm()))
    return worst


def where_convolutions_ran(call, device):
    """{operator: calls} of everything that convolves, as the profiler saw it."""
    from torch.profiler import ProfilerActivity, profile
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as seen:
        call()
        Clock(device).sync()
    ops = {}
    for e in seen.key_averages():
        if e.key.startswith("aten::") and ("conv" in e.key or "vol2col" in e.key) and e.key not in (
                "aten::conv2d", "aten::conv3d", "aten::convolution", "aten::_convolution",
                "aten::conv_transpose2d", "aten::conv_transpose3d"):
            ops[e.key] = ops.get(e.key, 0) + e.count
    return ops


def captured(call):
    """`call` as one CUDA graph; warmed up beside it, as PyTorch asks for."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


class Runs:
    """One variant of a network, with the copies in and out and without them."""

    def __init__(self, args, net, x, layout, device):
        self.net, self.device, self.layout = net, device, layout
        self.dtype = TYPES[args.precision]
        pin = device.type == "cuda"
        self.host = [t.clone(memory_format=torch.preserve_format) for t in x]
        if pin:
            self.host = [t.pin_memory() for t in self.host]
        self.x = [self.typed(i, t.to(device)) for i, t in enumerate(self.host)]
        self.out = None
        self.back = None

    def typed(self, i, t):
        if i == 1:  # the mask on the grid weighs in fp32
            return t
        return t.to(self.dtype).contiguous(memory_format=self.layout)

    def alone(self):
        self.out = self.net(*self.x)

    def whole(self):
        x = [self.typed(i, t.to(self.device, non_blocking=True))
             for i, t in enumerate(self.host)]
        out = {k: v.float() for k, v in self.net(*x).items()}
        if self.back is None:
            self.back = {k: torch.empty_like(v, device="cpu", pin_memory=self.device.type == "cuda")
                         for k, v in out.items()}
        for k, v in out.items():
            self.back[k].copy_(v, non_blocking=True)


def measure(args, name, runs, want, device, convs):
    clock = Clock(device)
    with torch.inference_mode():
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        runs.alone()
        clock.sync()
        first_s = time.perf_counter() - start
        ops = where_convolutions_ran(runs.alone, device)
        inside = sum(n for op, n in ops.items() if op.startswith("aten::cudnn_conv"))
        elsewhere = {op: n for op, n in ops.items() if not op.startswith("aten::cudnn_conv")}
        line = {"stage": args.stage, "precision": args.precision, "batch": len(runs.host[0]),
                "convolutions": convs, "in_cudnn": inside, "elsewhere": elsewhere,
                "first_s": first_s, "distance": distance(runs.out, want)}
        alone, whole = runs.alone, runs.whole
        for graph in ("", " + graph"):
            if graph:
                if device.type != "cuda":
                    continue
                alone, whole = captured(alone), captured(whole)
            line.update(variant=name + graph, ms=clock.median(clock.device_ms, alone, args.repeats),
                        host_ms=clock.median(clock.host_ms, whole, args.repeats))
            if device.type == "cuda":
                free, total = torch.cuda.mem_get_info()
                line.update(peak_mib=torch.cuda.max_memory_allocated() / 2 ** 20,
                            device_mib=(total - free) / 2 ** 20)
            say(**line)


def network(args, device):
    net, x, want, layout = load(args, device)
    convs = sum(isinstance(m, (Conv, Up)) for m in net.modules())
    for name in args.variants.split(","):
        try:
            model = net if name == "eager" else torch.compile(net)
            measure(args, name, Runs(args, model, x, layout, device), want, device, convs)
        except Exception as e:  # the next variant may still run
            say(stage=args.stage, precision=args.precision, variant=name,
                error=f"{type(e).__name__}: {str(e)[:200]}")


def main():
    p = argparse.ArgumentParser(usage=__doc__)
    p.add_argument("bundle", nargs="?")
    p.add_argument("stage", nargs="?")
    p.add_argument("path", nargs="?")
    p.add_argument("--rates", action="store_true")
    p.add_argument("--size", type=int, default=8192)
    p.add_argument("--device", default="cuda")
    p.add_argument("--precision", default="fp16", choices=TYPES)
    p.add_argument("--repeats", type=int, default=30)
    p.add_argument("--variants", default="eager,compile")
    args = p.parse_args()
    warnings.filterwarnings("ignore")
    device = torch.device(args.device)
    torch.backends.cudnn.benchmark = True
    if args.rates:
        versions(device)
        rates(args, device)
    else:
        network(args, device)


main()
