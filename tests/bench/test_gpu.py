"""bench/gpu.sh as far as no GPU is needed: it names what is missing, and goes the
whole way with the stand-in for a GPU, tiny networks and, where there is one, PyTorch
on the CPU.

Arguments: the build folder.
"""
import json
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SCRIPT = os.path.join(ROOT, "bench", "gpu.sh")
faults = []


def check(good, words):
    if not good:
        faults.append(words)


def script(*args, **env):
    """With a terminal that nobody types at: it must not wait for that."""
    r, w = os.pipe()
    try:
        return subprocess.run([SCRIPT, *args], text=True, capture_output=True, stdin=r,
                              env=dict(os.environ, **env))
    finally:
        os.close(r)
        os.close(w)


def program(folder, name, body):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as f:
        f.write("#!/bin/sh\n" + body + "\n")
    os.chmod(path, 0o755)


def missing_things(tmp):
    path = tmp + ":" + os.environ["PATH"]
    places = ("--build", os.path.join(tmp, "build"), "--out", os.path.join(tmp, "out"))
    program(tmp, "nvidia-smi", "exit 9")
    done = script(*places, PATH=path)
    check(done.returncode == 2, f"without a GPU: exit {done.returncode}")
    check("missing: a GPU (" in done.stderr, f"without a GPU: {done.stderr}")

    program(tmp, "nvidia-smi", "echo 'GPU 0: a card'")
    program(tmp, "nvcc", "echo release 13.0,")
    os.makedirs(os.path.join(tmp, "include"))
    with open(os.path.join(tmp, "include", "cudnn_version.h"), "w", encoding="utf-8") as f:
        f.write("#define CUDNN_MAJOR 9\n#define CUDNN_MINOR 10\n#define CUDNN_PATCHLEVEL 2\n")
    done = script(*places, "--cudnn", tmp, "--python", "/bin/false", PATH=path)
    check(done.returncode == 2, f"with an old cuDNN: exit {done.returncode}")
    check("missing: cuDNN >= 9.15 (this is 9.10.2) (" in done.stderr, f"old cuDNN: {done.stderr}")

    # PyTorch's is too old and the system has none, or none that is newer.
    program(tmp, "torch-python", f"echo {tmp}")
    done = script(*places, "--python", os.path.join(tmp, "torch-python"), PATH=path, CUDNN_ROOT="")
    check("missing: cuDNN >= 9.15 (this is 9.10.2) (" in done.stderr or done.returncode != 2,
          f"PyTorch's cuDNN: {done.stderr}")
    os.remove(os.path.join(tmp, "include", "cudnn_version.h"))
    done = script(*places, "--cudnn", tmp, "--python", "/bin/false", PATH=path)
    check("missing: cuDNN >= 9.15 (PyPI" in done.stderr, f"without cuDNN: {done.stderr}")

    # Headers of another oneDNN, or a library that lacks what it needs.
    program(tmp, "cc", "echo no such library >&2; exit 1")
    done = script(*places, "--cudnn", tmp, "--python", "/bin/false", PATH=path)
    check("missing: oneDNN 2.x (" in done.stderr, f"without oneDNN: {done.stderr}")

    check(script("--what").returncode == 2, "an unknown option is no usage error")


def whole_way(tmp, build):
    venv = os.path.join(ROOT, ".venv", "bin", "python")
    python = os.environ.get("HEPAR_TORCH_PYTHON", venv if os.path.exists(venv) else sys.executable)
    done = script("--self-check", "--build", build, "--out", tmp, "--python", python)
    words = done.stdout + done.stderr
    check(done.returncode == 0, f"self-check: exit {done.returncode}: {words}")
    results = os.path.join(build, "gpu-results")
    with open(os.path.join(results, "nets.jsonl"), encoding="utf-8") as f:
        nets = [json.loads(x) for x in f]
    check(len(nets) == 6, f"{len(nets)} networks, not three in two precisions")
    for n in nets:
        check(0 < n.get("worst_rms", -1) < n["tolerance"] and n["stages"] > 3 and n["ms"] > 0, f"{n}")
    with open(os.path.join(tmp, "gpu-stand-in.md"), encoding="utf-8") as f:
        page = f.read()
    check(page.count("| agrees |") == 6, "the page does not say that six agree")
    beside = os.path.join(results, "torch.jsonl")
    if not os.path.exists(beside):
        print(f"{python} has no torch: that side was not tried")
        return
    with open(beside, encoding="utf-8") as f:
        theirs = [json.loads(x) for x in f]
    eager = {t["stage"]: t for t in theirs if t.get("variant") == "eager"}
    check(sorted(eager) == ["detector", "ksf", "liver"], f"PyTorch ran {sorted(eager)}")
    for t in eager.values():  # fp32 there, halves here
        check("error" not in t and t["distance"] < 1e-2, f"{t}")
        ours = next(n for n in nets if (n["stage"], n["precision"]) == (t["stage"], "fp16"))
        convolutions = len(ours["layers"])
        check(t["convolutions"] == convolutions, f"{t['stage']}: {t['convolutions']} convolutions "
              f"in PyTorch, {convolutions} in C")


with tempfile.TemporaryDirectory(prefix="hepar-bench-") as folder:
    missing_things(folder)
    whole_way(folder, sys.argv[1])
print("\n".join(faults))
sys.exit(1 if faults else 0)
