"""Writes the seeds of the front door's fuzz targets: small, made here, no patient.

    python3 tests/fuzz/make_corpus.py [FOLDER]
"""

import os
import struct
import sys

CT = b"1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_LE = b"1.2.840.10008.1.2.1"
IMPLICIT_LE = b"1.2.840.10008.1.2"
BIG_ENDIAN = b"1.2.840.10008.1.2.2"
OPEN = 0xFFFFFFFF
ROOT = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), "corpus")


def save(target, name, data):
    folder = os.path.join(ROOT, target)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as f:
        f.write(data)


def item(kind, body):
    return struct.pack(">BBH", kind, 0, len(body)) + body


def context(number, abstract, *syntaxes):
    body = bytes([number, 0, 0, 0]) + item(0x30, abstract)
    return item(0x20, body + b"".join(item(0x40, s) for s in syntaxes))


def request(contexts, user=b"", called=b"HEPAR", calling=b"TEST", version=1,
            application=b"1.2.840.10008.3.1.1.1"):
    body = struct.pack(">HH", version, 0) + called.ljust(16) + calling.ljust(16) + b"\0" * 32
    body += item(0x10, application) + contexts
    body += item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3") + user)
    return struct.pack(">BBI", 1, 0, len(body)) + body


def pdata(*fragments):
    body = b"".join(struct.pack(">IBB", len(d) + 2, c, m) + d for c, m, d in fragments)
    return struct.pack(">BBI", 4, 0, len(body)) + body


def command(field, instance=b"1.2.3.4", dataset=True, sop_class=CT):
    def e(number, value):
        value += b"\0" * (len(value) % 2)
        return struct.pack("<HHI", 0, number, len(value)) + value

    body = e(0x0002, sop_class) + e(0x0100, struct.pack("<H", field))
    body += e(0x0110, struct.pack("<H", 1))
    body += e(0x0800, struct.pack("<H", 0 if dataset else 0x0101))
    if instance:
        body += e(0x1000, instance)
    return e(0x0000, struct.pack("<I", len(body))) + body


class Writer:
    """Elements in one of the three encodings."""

    def __init__(self, kind):
        self.implicit = kind == 0
        self.order = ">" if kind == 2 else "<"

    def head(self, group, number, vr, length):
        tag = struct.pack(self.order + "HH", group, number)
        if self.implicit or group == 0xFFFE:
            return tag + struct.pack(self.order + "I", length)
        if vr in (b"OB", b"OW", b"SQ", b"UN"):
            return tag + vr + b"\0\0" + struct.pack(self.order + "I", length)
        return tag + vr + struct.pack(self.order + "H", length)

    def element(self, group, number, vr, value):
        value += b"\0" * (len(value) % 2)
        return self.head(group, number, vr, len(value)) + value

    def slice(self):
        return b"".join([
            self.element(0x0008, 0x0016, b"UI", CT),
            self.element(0x0008, 0x0018, b"UI", b"1.2.3.4"),
            self.element(0x0008, 0x0060, b"CS", b"CT"),
            self.element(0x0010, 0x0020, b"LO", b"FUZZ"),
            self.element(0x0020, 0x000D, b"UI", b"1.2.3"),
            self.element(0x0020, 0x000E, b"UI", b"1.2.3.1"),
        ])

    def nested(self, depth, length=OPEN):
        out = b"".join(self.head(0x0008, 0x1115, b"SQ", length) +
                       self.head(0xFFFE, 0xE000, b"", length) for _ in range(depth))
        return out + (self.head(0xFFFE, 0xE00D, b"", 0) + self.head(0xFFFE, 0xE0DD, b"", 0)) * depth


def datasets():
    for kind, name in enumerate(["implicit", "explicit", "big"]):
        w, first = Writer(kind), bytes([kind + 3 * 7])
        pixels = w.element(0x7FE0, 0x0010, b"OW", b"\1\2\3\4" * 10)
        save("scan", f"{name}_slice", first + w.slice() + pixels)
        save("scan", f"{name}_nested", first + w.nested(5) + w.slice())
        save("scan", f"{name}_deep", first + w.nested(70))
        inner = w.element(0x0008, 0x0060, b"CS", b"MR")
        defined = w.head(0xFFFE, 0xE000, b"", len(inner)) + inner
        save("scan", f"{name}_defined", first + w.element(0x0008, 0x1110, b"SQ", defined) + w.slice())
        save("scan", f"{name}_long", first + w.head(0x0009, 0x1001, b"OB", 0xF0000000))
        save("scan", f"{name}_cut", first + (w.slice() + pixels)[:-3])
    w = Writer(1)
    fragments = w.head(0x7FE0, 0x0010, b"OB", OPEN) + w.head(0xFFFE, 0xE000, b"", 0)
    fragments += w.head(0xFFFE, 0xE000, b"", 6) + b"abcdef" + w.head(0xFFFE, 0xE0DD, b"", 0)
    save("scan", "explicit_fragments", b"\1" + w.slice() + fragments)
    unknown = w.head(0x0009, 0x1001, b"UN", OPEN) + Writer(0).nested(1)[8:]
    save("scan", "explicit_unknown", b"\1" + unknown + w.slice())


def commands():
    save("dimse", "store", command(1))
    save("dimse", "echo", command(0x30, b"", False, b"1.2.840.10008.1.1"))
    save("dimse", "find", command(0x20, b""))
    save("dimse", "answer", command(0x8001, dataset=False))
    c = command(1)
    rows = b"".join(bytes([5, 1, len(c[i:i + 40])]) + c[i:i + 40] for i in range(0, len(c) - 40, 40))
    tail = c[len(c) - len(c) % 40 or len(c) - 40:]
    save("dimse", "fragments", rows + bytes([7, 1, len(tail)]) + tail +
         bytes([4, 1, 3]) + b"abc" + bytes([6, 1, 2]) + b"de")


def connections():
    two = context(1, CT, EXPLICIT_LE, IMPLICIT_LE) + context(3, b"1.2.840.10008.1.1", IMPLICIT_LE)
    release = struct.pack(">BBI", 5, 0, 4) + b"\0" * 4
    abort = struct.pack(">BBI", 7, 0, 4) + b"\0" * 4
    body = Writer(1).slice()
    store = pdata((1, 3, command(1))) + pdata((1, 0, body[:50])) + pdata((1, 2, body[50:]))
    echo = pdata((3, 3, command(0x30, b"", False, b"1.2.840.10008.1.1")))
    c = command(1)
    shared = pdata((1, 1, c[:30]), (1, 3, c[30:]), (1, 0, body[:20]), (1, 2, body[20:]))
    role = struct.pack(">H", len(CT)) + CT + b"\1\1"
    user = item(0x53, b"\0\5\0\5") + item(0x54, role) + item(0x58, b"\1\1\0\1u\0\0") + item(0x56, b"x")
    for chunk, (name, data) in enumerate([
        ("echo", request(two) + echo + release),
        ("store", request(two) + store + release),
        ("shared", request(two, user) + shared + store + abort),
        ("many", request(b"".join(context(2 * i + 1, CT, BIG_ENDIAN) for i in range(20))) + release),
        ("even", request(context(2, CT, EXPLICIT_LE))),
        ("twice", request(two + two)),
        ("version", request(two, version=2)),
        ("application", request(two, application=b"1.2.3")),
        ("role_length", request(two, item(0x54, b"\0\1"))),
        ("unasked", request(two) + pdata((9, 3, command(1)))),
        ("long", request(two) + struct.pack(">BBI", 4, 0, 1 << 31)),
        ("empty", b"\1\0\0\0\0\0"),
        ("http", b"GET / HTTP/1.1\r\n\r\n"),
        ("tls", b"\x16\3\1\2\0\1\0\1\xfc\3\3"),
    ]):
        save("ul", name, bytes([chunk * 5]) + data)


datasets()
commands()
connections()
