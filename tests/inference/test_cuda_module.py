"""The CUDA module that was built, loaded by hepar-worker on this machine.

It shows one symbol and holds the CUDA runtime itself. Where there is no GPU,
`cuda` refuses with the reason and `auto` takes the CPU; where there is one, both
start.

Arguments: the module, hepar-worker, a bundle. Exit 77 where readelf is missing.
"""
import json
import os
import re
import shutil
import subprocess
import sys

module, worker, bundle = sys.argv[1:]
if shutil.which("readelf") is None:
    print("readelf is missing")
    sys.exit(77)


def readelf(*options):
    return subprocess.run(["readelf", "-W", *options, module], text=True, capture_output=True,
                          check=True).stdout


def check(device):
    options = json.dumps({"bundle": bundle, "device": device})
    done = subprocess.run([worker, "--check", options], text=True, capture_output=True,
                          env=dict(os.environ, HEPAR_CUDA_MODULE=module), timeout=300)
    return done.returncode, done.stderr.strip()


faults = []
needed = re.findall(r"\(NEEDED\).*\[(.*?)\]", readelf("-d"))
faults += [f"needs {name}" for name in needed if re.search(r"libcudart|libcuda\.|nvrtc|dnnl", name)]
if not any(name.startswith("libcudnn.so.9") for name in needed):
    faults.append("does not need libcudnn.so.9")
shown = {line.split()[-1] for line in readelf("--dyn-syms").splitlines()
         if re.search(r"\b(GLOBAL|WEAK)\b", line) and not re.search(r"\bUND\b", line)}
if shown != {"hp_backend_module_entry"}:
    faults.append(f"shows {sorted(shown)[:10]}")

code, words = check("auto")
if code != 0:
    faults.append(f"auto: {words}")
code, words = check("cuda")
if code != 0 and "device cuda: " not in words:
    faults.append(f"cuda: refused without a reason: {words}")
if code != 0 and re.search(r"CUDA module: |another version|no module|no CUDA module", words):
    faults.append(f"cuda: the module did not load: {words}")
print("cuda:", words or "started")
print("\n".join(faults))
sys.exit(1 if faults else 0)
