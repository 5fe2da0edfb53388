"""The port under attack: noise, mutated sessions, drips, half-closed and reset
connections, by the hundred. Afterwards the door answers an echo at once, has
closed every stranger, and has neither grown nor left anything behind.

    test_attack.py HEPAR_DOOR CORPUS_UL [SECONDS]
"""

import glob
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixture"))
import ct_files

SECONDS = float(sys.argv[3]) if len(sys.argv) > 3 else 6.0
ARTIM_MS = 1500


def item(kind, body):
    return struct.pack(">BBH", kind, 0, len(body)) + body


def associate_rq(calling=b"TEST"):
    body = struct.pack(">HH", 1, 0) + b"HEPAR".ljust(16) + calling.ljust(16) + b"\0" * 32
    body += item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, (abstract, syntax) in enumerate([(ct_files.CT.encode(), b"1.2.840.10008.1.2.1"),
                                                 (b"1.2.840.10008.1.1", b"1.2.840.10008.1.2")]):
        body += item(0x20, bytes([2 * number + 1, 0, 0, 0]) + item(0x30, abstract) +
                     item(0x40, syntax))
    body += item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3"))
    return struct.pack(">BBI", 1, 0, len(body)) + body


def command(field, sop_class, instance=b"", dataset=True):
    def e(number, value):
        value += b"\0" * (len(value) % 2)
        return struct.pack("<HHI", 0, number, len(value)) + value

    body = e(0x0002, sop_class) + e(0x0100, struct.pack("<H", field))
    body += e(0x0110, b"\1\0") + e(0x0800, b"\0\0" if dataset else b"\1\1")
    if instance:
        body += e(0x1000, instance)
    return e(0, struct.pack("<I", len(body))) + body


def pdata(context, control, data):
    return struct.pack(">BBIIBB", 4, 0, len(data) + 6, len(data) + 2, context, control) + data


def store(number):
    uid, body = ct_files.dataset(number, 128)
    out = pdata(1, 3, command(1, ct_files.CT.encode(), uid.encode()))
    for at in range(0, len(body), 16000):
        out += pdata(1, 2 if at + 16000 >= len(body) else 0, body[at:at + 16000])
    return out


ECHO = pdata(3, 3, command(0x30, b"1.2.840.10008.1.1", dataset=False))
RELEASE = struct.pack(">BBI", 5, 0, 4) + b"\0" * 4


def read_pdu(s):
    head = b""
    while len(head) < 6:
        more = s.recv(6 - len(head))
        if not more:
            return None
        head += more
    left = struct.unpack(">I", head[2:])[0]
    body = b""
    while len(body) < left:
        body += s.recv(left - len(body))
    return head[0], body


def connect(port):
    s = socket.create_connection(("127.0.0.1", port), 10)
    s.settimeout(10)
    return s


def echo(port):
    """Seconds from connecting to the answer."""
    start = time.monotonic()
    with connect(port) as s:
        s.sendall(associate_rq())
        assert read_pdu(s)[0] == 2
        s.sendall(ECHO)
        assert read_pdu(s)[0] == 4
        took = time.monotonic() - start
        s.sendall(RELEASE)
        assert read_pdu(s)[0] == 6
    return took


def mutate(rng, data):
    data = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        if not data:
            break
        at = rng.randrange(len(data))
        what = rng.randrange(5)
        if what == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            data[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
        elif what == 2:
            del data[at:at + rng.randint(1, 40)]
        elif what == 3:
            data[at:at] = data[at:at + rng.randint(1, 40)]
        else:
            del data[at:]
    return bytes(data)


def attack(rng, port, sessions):
    """One hostile connection; what it says and how it leaves is drawn by lot."""
    s = connect(port)
    s.settimeout(0.02)
    try:
        how = rng.randrange(6)
        data = rng.randbytes(rng.randint(0, 3000)) if how == 0 else mutate(rng, rng.choice(sessions))
        if how == 1:  # noise behind a good request
            data = associate_rq() + rng.randbytes(rng.randint(1, 3000))
        step = rng.choice([1, 7, 100, 1 << 20])
        for at in range(0, min(len(data), 400 * step), step):
            s.sendall(data[at:at + step])
        if how == 2:
            s.shutdown(socket.SHUT_WR)
        if how == 3:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if how == 4:
            s.recv(100)
    except OSError:
        pass
    return s


def hammer(seed, port, sessions, until):
    rng = random.Random(seed)
    kept = []
    while time.monotonic() < until:
        s = attack(rng, port, sessions)
        if len(kept) < 60 and rng.random() < 0.2:
            kept.append(s)  # says nothing more and stays
        else:
            s.close()
    time.sleep(0.1)
    for s in kept:
        s.close()


def status(pid, name):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith(name))


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def sessions_from(corpus):
    found = [open(p, "rb").read()[1:] for p in sorted(glob.glob(corpus + "/*"))]
    data = os.environ.get("HEPAR_TEST_DATA", os.path.join(corpus, "../../../../../shared/data"))
    found += [open(p, "rb").read() for p in sorted(glob.glob(data + "/malformed/pdu/*"))]
    found += [associate_rq() + ECHO + RELEASE, associate_rq() + store(1) + RELEASE,
              associate_rq() + store(2) + store(3)]
    return found


def wait_quiet(pid, fds):
    for _ in range(200):
        if descriptors(pid) <= fds:
            return
        time.sleep(0.05)
    raise AssertionError(f"{descriptors(pid)} descriptors are open, {fds} at the start")


def send_long(port, megabytes):
    """One object of that size; memory must not follow it."""
    uid, body = ct_files.dataset(9, 16)
    size, chunk = megabytes << 20, bytes(131000)
    head = body[:body.rindex(b"\xe0\x7f\x10\x00")]
    with connect(port) as s:
        s.settimeout(60)
        s.sendall(associate_rq())
        assert read_pdu(s)[0] == 2
        s.sendall(pdata(1, 3, command(1, ct_files.CT.encode(), uid.encode())))
        s.sendall(pdata(1, 0, head + struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, size)))
        for _ in range(size // len(chunk)):
            s.sendall(pdata(1, 0, chunk))
        s.sendall(pdata(1, 2, bytes(size % len(chunk))))
        answer = read_pdu(s)[1]
        assert b"\0\0\0\x09\2\0\0\0\0\0" in answer, answer


def main():
    folder = tempfile.mkdtemp(prefix="hepar-attack-")
    env = {**os.environ, "HEPAR_TEST_ARTIM_MS": str(ARTIM_MS)}
    log = open(folder + "/log", "w+b")
    os.makedirs(folder + "/spool")
    door = subprocess.Popen([sys.argv[1], folder + "/spool", "TEST"], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=log, env=env)
    try:
        port = int(door.stdout.readline().split()[1])
        sessions = sessions_from(sys.argv[2])
        echo(port)
        hammer(0, port, sessions, time.monotonic() + 1)  # warm
        time.sleep(ARTIM_MS / 1000 + 0.5)
        fds, memory = descriptors(door.pid), status(door.pid, "VmRSS")
        threads = status(door.pid, "Threads")
        until = time.monotonic() + SECONDS
        crowd = [threading.Thread(target=hammer, args=(n, port, sessions, until))
                 for n in range(1, 5)]
        for t in crowd:
            t.start()
        slow = 0.0
        while time.monotonic() < until:
            slow = max(slow, echo(port))
            time.sleep(0.05)
        for t in crowd:
            t.join()
        wait_quiet(door.pid, fds)
        after = echo(port)
        grown = status(door.pid, "VmRSS") - memory
        print(f"slowest echo {slow * 1000:.0f} ms under attack, {after * 1000:.0f} ms after; "
              f"{grown} KiB grown")
        send_long(port, 100)
        peak = status(door.pid, "VmHWM")
        print(f"peak {peak} KiB with an object of 100 MiB")
        if "HEPAR_SANITIZED" not in os.environ:  # memory means nothing under a sanitizer
            assert grown < 16384, grown
            assert peak < 40 * 1024, peak
        assert status(door.pid, "Threads") == threads
        out, _ = door.communicate(timeout=30)
        print(out.decode().splitlines()[-1])
        assert door.returncode == 0, door.returncode
        assert all(ct_files.marked(p) for p in glob.glob(folder + "/spool/*.dcm"))
        log.seek(0)
        for line in log.read().splitlines():
            assert line[:1] == b"<" and all(32 <= c < 127 for c in line), line
    finally:
        if door.poll() is None:
            door.kill()
            door.wait()
        log.seek(0)
        if door.returncode:
            sys.stdout.write(log.read()[-4000:].decode(errors="replace"))
        shutil.rmtree(folder, ignore_errors=True)


main()
