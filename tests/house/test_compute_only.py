"""The rooms that compute configure alone (-Dcompute_only=true), where of all pkg-config
packages only theirs exist; a cuDNN that is asked for and too old is refused there.

Arguments: meson.
"""
import json
import os
import subprocess
import sys
import tempfile

import house

# cmocka and zlib are the tests' (the phantom writes NIfTI)
PACKAGES = {"jansson", "yaml-0.1", "cmocka", "zlib"}
ROOMS = ("base", "kernels", "inference", "tests/phantom", "tests/kernels", "tests/inference",
         "bench/cpu", "bench/gpu")


def hide_other_packages(folder):
    """A folder that pkg-config takes for all there is."""
    for name in PACKAGES:
        where = subprocess.run(["pkg-config", "--variable=pcfiledir", name], text=True,
                               capture_output=True, check=True).stdout.strip()
        os.symlink(os.path.join(where, name + ".pc"), os.path.join(folder, name + ".pc"))


def refuses_an_old_cudnn(folder):
    root = os.path.join(folder, "cudnn")
    for name, text in (("include/cudnn.h", "#define CUDNN_VERSION 91002\n"), ("lib/libcudnn.so.9", "")):
        os.makedirs(os.path.dirname(os.path.join(root, name)))
        with open(os.path.join(root, name), "w", encoding="utf-8") as f:
            f.write(text)
    done = subprocess.run([sys.argv[1], "setup", os.path.join(folder, "old"), house.ROOT,
                           "-Dcompute_only=true", "-Dcudnn_root=" + root], text=True, capture_output=True)
    if done.returncode == 0 or f"cuDNN 9.15 or newer is needed, in {root}" not in done.stdout:
        return [f"an old cuDNN: exit {done.returncode}: {done.stdout[-600:]}"]
    return []


def main():
    faults = []
    with tempfile.TemporaryDirectory(prefix="hepar-compute-") as folder:
        packages, build = os.path.join(folder, "pkgconfig"), os.path.join(folder, "build")
        os.mkdir(packages)
        hide_other_packages(packages)
        done = subprocess.run(
            [sys.argv[1], "setup", build, house.ROOT, "-Dcompute_only=true", "-Dcuda=disabled"],
            env=dict(os.environ, PKG_CONFIG_LIBDIR=packages, PKG_CONFIG_PATH=""),
            text=True, capture_output=True)
        if done.returncode != 0:
            house.finish(["it does not configure: " + done.stdout[-600:] + done.stderr[-200:]])
        with open(os.path.join(build, "meson-info", "intro-dependencies.json"), encoding="utf-8") as f:
            asked = {d["name"] for d in json.load(f)}
        with open(os.path.join(build, "meson-info", "intro-targets.json"), encoding="utf-8") as f:
            rooms = {os.path.relpath(os.path.dirname(t["defined_in"]), house.ROOT)
                     for t in json.load(f)}
        faults += refuses_an_old_cudnn(folder)
    faults += [f"it asks for {name}" for name in sorted(asked - PACKAGES - {"threads", "openmp", "dl"})]
    faults += [f"it builds {room}" for room in sorted(rooms - set(ROOMS))]
    faults += [f"it does not build {room}" for room in sorted(set(ROOMS) - rooms)]
    house.finish(faults)


main()
