"""Every public header compiles alone: as strict C11, and from C++.

Arguments: the C compiler, the C++ compiler, then flags (include folders of
libraries that a header may name).
"""
import re
import subprocess
import sys

import house

ROOMS = ("base", "config", "db", "dicom", "kernels", "inference", "daemon")
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-D_GNU_SOURCE", "-fsyntax-only",
          "-I", house.ROOT]


def compile_alone(command, header):
    unit = f'#include "{header}"\nextern int hp_header_is_alone;\n'
    done = subprocess.run(command + STRICT + sys.argv[3:] + ["-"], input=unit, text=True,
                          capture_output=True)
    if done.returncode == 0:
        return []
    first = next((l for l in done.stderr.splitlines() if "error" in l), "does not compile")
    return [f"{header}: {command[0]}: {first}"]


def main():
    faults = []
    for path in house.files():
        if path.split("/")[0] not in ROOMS or not path.endswith(".h"):
            continue
        if path.endswith("_internal.h"):
            continue
        faults += compile_alone([sys.argv[1], "-std=c11", "-x", "c"], path)
        faults += compile_alone([sys.argv[2], "-std=c++17", "-x", "c++"], path)
        guard = "HP_" + re.sub(r"\W", "_", path).upper()
        content = house.text(path)
        if f"#ifndef {guard}\n" not in content:
            faults.append(f"{path}: its guard should be {guard}")
        # daemon/ is the top floor: nothing above it, and no C++, includes its headers.
        if not path.startswith("daemon/") and 'extern "C"' not in content \
                and re.search(r"^\w[^#]*\bhp_\w+\(", content, re.M) \
                and "static inline" not in content:
            faults.append(f'{path}: functions without extern "C"')
    house.finish(faults)


main()
