"""Malformed files of other projects, each sent as its dataset lies there: an answer
every time, nothing half on disk, and the counters add up.

    test_malformed.py HEPAR_DOOR DATA_FOLDER
"""

import glob
import io
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixture"))
import ct_files

FOLDER = os.path.join(os.environ.get("HEPAR_TEST_DATA", sys.argv[2]), "malformed")
ALLOWED = {0x0000, 0xA900, 0xC000}


def files():
    for path in sorted(glob.glob(FOLDER + "/*.dcm")):
        with open(path, "rb") as f:
            yield os.path.basename(path), f.read()
    for path in sorted(glob.glob(FOLDER + "/*.tar.xz")):
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and member.name.endswith(".dcm"):
                    yield os.path.basename(member.name), archive.extractfile(member).read()


def meta_value(meta, number):
    """Of an element in the (explicit) file meta, found by its tag; b"" if none."""
    at = meta.find(struct.pack("<HH", 2, number) + b"UI")
    if at < 0:
        return b""
    length = struct.unpack_from("<H", meta, at + 6)[0]
    return meta[at + 8:at + 8 + length].strip(b"\0 ")


def take_apart(data):
    """Transfer syntax, SOP class, SOP instance and the dataset's bytes."""
    start = 132 if data[128:132] == b"DICM" else 0
    at = start
    while data[at:at + 2] == b"\2\0" and at + 8 <= len(data):  # the meta group
        wide = data[at + 4:at + 6] in (b"OB", b"UN")
        length = struct.unpack_from("<I" if wide else "<H", data.ljust(at + 12, b"\0"),
                                    at + (8 if wide else 6))[0]
        at += (12 if wide else 8) + length
    meta = data[start:at]
    syntax = meta_value(meta, 0x0010)
    if not syntax.startswith(b"1.2.840.10008.1.2"):
        syntax = b"1.2.840.10008.1.2.1"
    return syntax, meta_value(meta, 0x0002), meta_value(meta, 0x0003), data[at:]


def item(kind, body):
    return struct.pack(">BBH", kind, 0, len(body)) + body


def request(abstract, syntax):
    body = struct.pack(">HH", 1, 0) + b"HEPAR".ljust(16) + b"TEST".ljust(16) + b"\0" * 32
    body += item(0x10, b"1.2.840.10008.3.1.1.1")
    body += item(0x20, b"\1\0\0\0" + item(0x30, abstract) + item(0x40, syntax))
    body += item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3"))
    return struct.pack(">BBI", 1, 0, len(body)) + body


def pdata(control, data):
    return struct.pack(">BBIIBB", 4, 0, len(data) + 6, len(data) + 2, 1, control) + data


def command(sop_class, instance):
    def e(number, value):
        value += b"\0" * (len(value) % 2)
        return struct.pack("<HHI", 0, number, len(value)) + value

    body = e(0x0002, sop_class) + e(0x0100, b"\1\0") + e(0x0110, b"\1\0") + e(0x0800, b"\0\0")
    body += e(0x1000, instance)
    return e(0, struct.pack("<I", len(body))) + body


def read_pdu(s):
    def exactly(n):
        out = b""
        while len(out) < n:
            more = s.recv(n - len(out))
            if not more:
                raise AssertionError("closed without an answer")
            out += more
        return out

    head = exactly(6)
    return head[0], exactly(struct.unpack(">I", head[2:])[0])


def send(port, data):
    """The status of the C-STORE; None where the transfer syntax is not taken."""
    syntax, sop_class, instance, dataset = take_apart(data)
    sop_class = sop_class or b"1.2.840.10008.5.1.4.1.1.2"
    known = {b"1.2.840.10008.5.1.4.1.1.2", b"1.2.840.10008.5.1.4.1.1.7"}
    abstract = sop_class if sop_class in known else b"1.2.840.10008.5.1.4.1.1.2"
    with socket.create_connection(("127.0.0.1", port), 20) as s:
        s.settimeout(20)
        s.sendall(request(abstract, syntax))
        kind, body = read_pdu(s)
        assert kind == 2, kind
        at = body.find(b"\x21\0")
        if body[at + 6] != 0:
            return None
        out = pdata(3, command(abstract, instance or b"1.2.3"))
        for at in range(0, max(len(dataset), 1), 16000):
            out += pdata(2 if at + 16000 >= len(dataset) else 0, dataset[at:at + 16000])
        s.sendall(out)
        kind, body = read_pdu(s)
        assert kind == 4, kind
        at = body.find(b"\0\0\0\x09\2\0\0\0")
        return struct.unpack_from("<H", body, at + 8)[0]


def main():
    if not os.path.isdir(FOLDER):
        print("no test data at", FOLDER)
        sys.exit(77)
    work = tempfile.mkdtemp(prefix="hepar-malformed-")
    door = subprocess.Popen([sys.argv[1], work, "TEST"], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        port = int(door.stdout.readline().split()[1])
        tally = {}
        for name, data in files():
            status = send(port, data)
            assert status is None or status in ALLOWED, (name, hex(status))
            tally[status] = tally.get(status, 0) + 1
        print({f"{k:04X}" if k is not None else "not taken": n for k, n in sorted(
            tally.items(), key=lambda kv: -1 if kv[0] is None else kv[0])})
        out, _ = door.communicate(timeout=30)
        assert door.returncode == 0, door.returncode
        t = json.load(io.StringIO(out.decode().splitlines()[-1]))
        print(t)
        assert t["received"] == t["stored"] + t["duplicate"] + t["conflict"] + t["refused"], t
        assert len(glob.glob(work + "/*.dcm")) == t["stored"]
        assert all(ct_files.marked(p) for p in glob.glob(work + "/*.dcm"))
        assert t["aborted"] == 0 and t["timed_out"] == 0, t
    finally:
        if door.poll() is None:
            door.kill()
            door.wait()
        shutil.rmtree(work, ignore_errors=True)


main()
