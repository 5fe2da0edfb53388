"""Every .cu was compiled to machine code for every architecture asked for, and its
last entry is the text (PTX) that newer cards compile for themselves.

Arguments: the architectures, the objects. Exits 77, with the reason, where there is
no nvcc. Reads the fat binary inside the object itself: cuobjdump is another package.
"""
import struct
import sys

MAGIC = b"\x50\xed\x55\xba"
PTX, ELF = 1, 2


def entries(data):
    """(kind, architecture) of each entry of each fat binary in an object file."""
    at = data.find(MAGIC)
    while at >= 0:
        _, _, header, size = struct.unpack_from("<IHHQ", data, at)
        entry, end = at + header, at + header + size
        while entry < end:
            kind, _, header, size = struct.unpack_from("<HHIQ", data, entry)
            yield kind, struct.unpack_from("<I", data, entry + 28)[0]
            entry += header + size
        at = data.find(MAGIC, end)


def main():
    archs, objects = sorted(int(a) for a in sys.argv[1].split()), sys.argv[2:]
    faults = []
    if not objects:
        print("skipped: no nvcc was found when this was configured (option cuda)")
        sys.exit(77)
    for path in objects:
        with open(path, "rb") as f:
            found = list(entries(f.read()))
        code = sorted(arch for kind, arch in found if kind == ELF)
        text = [arch for kind, arch in found if kind == PTX]
        if code != archs or text != archs[-1:]:
            faults.append(f"{path}: machine code for {code}, text for {text}")
    print(f"{len(objects)} objects for sm {archs}")
    for fault in faults:
        print(fault)
    sys.exit(1 if faults else 0)


main()
