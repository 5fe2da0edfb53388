"""Times one network of a bundle in another runtime, on the weights and size that
net_time.c uses; one JSON line. fp32 unless --precision bf16.

usage: peer_time.py RUNTIME BUNDLE STAGE REPEATS THREADS ONNX_FOLDER [bf16]

RUNTIME: torch (the better of its two layouts), onnxruntime, openvino. The latter two
read ONNX_FOLDER/STAGE.onnx, which torch writes when it is missing. What a runtime
computes is compared with torch's fp32 before it is timed: the largest difference, as a
share of the largest value, is in the line."""
import json
import os
import sys
import time

import numpy as np
import torch
import yaml

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)
from training.bundle import load_folded  # noqa: E402
from training.nets import build  # noqa: E402

# A protobuf file ends at 2 GiB; the weights of larger networks stand beside it.
WEIGHTS_IN_FILE = 1 << 28


def network(folder, stage):
    with open(os.path.join(folder, "bundle.yaml"), encoding="utf-8") as f:
        spec = yaml.safe_load(f)["stages"][stage]
    file = spec["files"][0]["file"] if "files" in spec else spec.get("file")
    if file:
        return spec, load_folded(spec["arch"], spec["params"], os.path.join(folder, file))
    torch.manual_seed(1)
    return spec, build(spec["arch"], spec["params"], folded=True).eval()


def inputs(spec):
    torch.manual_seed(2)
    if spec["arch"] == "sadt":
        side = spec["input"].get("crop", 256)
        return [torch.randn(1, 4, side, side), torch.ones(1, 1, side // 8, side // 8)]
    if spec["arch"] == "unet25d":
        return [torch.randn(1, spec["params"]["slices"], 288, 352)]
    return [torch.randn(1, 1, *spec["params"]["grid"])]


def export(net, args, path):
    if os.path.exists(path):
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    names = [f"in{i}" for i in range(len(args))]
    torch.onnx.export(net, tuple(args), path, input_names=names, dynamo=True, verbose=False,
                      external_data=sum(w.numel() for w in net.parameters()) > WEIGHTS_IN_FILE)


def timed(call, repeats):
    best, cpu = 1e300, 1e300
    for _ in range(repeats):
        w, c = time.perf_counter(), time.process_time()
        call()
        w, c = time.perf_counter() - w, time.process_time() - c
        best, cpu = min(best, w), min(cpu, c)
    return {"ms": best * 1e3, "cpu_ms": cpu * 1e3}


def in_torch(net, args, repeats, bf16):
    flat, best = args[0].dim() == 4, None
    for name, fmt in (("plain", torch.contiguous_format),
                      ("channels last", torch.channels_last if flat else torch.channels_last_3d)):
        model, x = net.to(memory_format=fmt), [args[0].to(memory_format=fmt), *args[1:]]
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = model(*x)
            took = timed(lambda: model(*x), repeats)  # noqa: B023
        if best is None or took["ms"] < best[0]["ms"]:
            best = ({**took, "layout": name}, [v.float().numpy() for v in out.values()])
    return best


def in_onnxruntime(path, args, repeats, threads):
    import onnxruntime
    o = onnxruntime.SessionOptions()
    o.intra_op_num_threads, o.inter_op_num_threads = threads, 1
    s = onnxruntime.InferenceSession(path, o, providers=["CPUExecutionProvider"])
    feed = {i.name: a.numpy() for i, a in zip(s.get_inputs(), args)}
    out = s.run(None, feed)
    return timed(lambda: s.run(None, feed), repeats), out, onnxruntime.__version__


def in_openvino(path, args, repeats, threads, bf16):
    import openvino
    compiled = openvino.Core().compile_model(path, "CPU", {
        "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32"})
    request = compiled.create_infer_request()
    feed = [a.numpy() for a in args][:len(compiled.inputs)]
    out = [np.array(v) for v in request.infer(feed).values()]
    return timed(lambda: request.infer(feed), repeats), out, openvino.__version__.split("-")[0]


def main():
    runtime, folder, stage = sys.argv[1:4]
    repeats, threads = int(sys.argv[4]), int(sys.argv[5])
    path, bf16 = os.path.join(sys.argv[6], stage + ".onnx"), sys.argv[7:] == ["bf16"]
    torch.set_num_threads(threads)
    spec, net = network(folder, stage)
    args = inputs(spec)
    with torch.inference_mode():
        truth = [v.float().numpy() for v in net(*args).values()]
    if runtime == "torch":
        took, out = in_torch(net, args, repeats, bf16)
        version = torch.__version__
    else:
        export(net, args, path)
        took, out, version = in_onnxruntime(path, args, repeats, threads) \
            if runtime == "onnxruntime" else in_openvino(path, args, repeats, threads, bf16)
    away = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(out, truth))
    print(json.dumps({"stage": stage, "runtime": runtime, "version": version, **took,
                      "away": round(away, 6)}))


main()
