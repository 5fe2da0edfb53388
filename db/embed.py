#!/usr/bin/env python3
"""Numbered SQL files -> a C array, so that the ledger's shape travels in the program."""
import pathlib
import sys

files = sorted(pathlib.Path(name) for name in sys.argv[2:])
numbers = [int(f.name.split("_")[0]) for f in files]
if numbers != list(range(1, len(files) + 1)):
    sys.exit(f"migrations must be numbered 1..n without a gap: {numbers}")
with open(sys.argv[1], "w", encoding="ascii") as out:
    out.write('#include "db/db_internal.h"\n\n')
    # Bytes and not a string: C11 promises string literals of 4095 bytes only.
    for number, f in zip(numbers, files):
        data = f.read_bytes() + b"\0"
        out.write(f"static const char migration_{number}[] = {{ /* {f.name} */\n")
        for at in range(0, len(data), 20):
            out.write("    " + "".join(f"{b}," for b in data[at : at + 20]) + "\n")
        out.write("};\n")
    out.write("const char *const hp_db__migrations[] = {\n")
    out.write("".join(f"    migration_{n},\n" for n in numbers) + "};\n")
    out.write(f"const int hp_db__migration_count = {len(files)};\n")
