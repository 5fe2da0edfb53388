"""hepar-prepare draws training tensors from seeds alone: what each kind of file holds,
and that a second run leaves finished files alone."""
import json
import os
import struct
import subprocess
import sys
import tempfile

PREPARE, BUNDLE = sys.argv[1:3]
SEED = 100_003


def header(path):
    with open(path, "rb") as f:
        size, = struct.unpack("<Q", f.read(8))
        return {k: v["shape"] for k, v in json.loads(f.read(size)).items() if k != "__metadata__"}


def run(folder, *options):
    r = subprocess.run([PREPARE, "--phantom", f"{SEED}..{SEED + 1}", "--out", folder, *options],
                       stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert r.returncode == 0, f"{options}: {r.stderr}"


with tempfile.TemporaryDirectory() as folder:
    name = f"{SEED:07d}.safetensors"
    run(folder, "--what", "primaries")
    found = header(os.path.join(folder, "primaries", name))
    n = found["class"][0]
    assert n >= 1 and found["hu"] == [n, 4, 320, 320] and found["rect"] == [n, 4], found

    # What the detector finds, as KSF learns it.
    run(folder, "--candidates", "--bundle", BUNDLE)
    path = os.path.join(folder, "candidates", name)
    found = header(path)
    n = found["score"][0]
    assert 1 <= n <= 10 and found["hu"] == [n, 4, 320, 320], found
    assert all(found[k][0] == n for k in ("iou", "iou_any", "kind", "class", "primary")), found

    before = os.stat(path).st_mtime_ns
    run(folder, "--candidates", "--bundle", BUNDLE)
    assert os.stat(path).st_mtime_ns == before, "a finished file was written again"
    assert sorted(os.listdir(folder)) == ["candidates", "primaries"]
