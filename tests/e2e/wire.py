"""A sender that can be as wrong as we like: the few PDUs of a C-STORE SCU,
written by hand, so that each field can be broken on purpose."""
import socket
import struct

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
VERIFICATION = "1.2.840.10008.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_LE = "1.2.840.10008.1.2.1"


def item(kind, body):
    return struct.pack(">BBH", kind, 0, len(body)) + body


def associate_rq(contexts, called="HEPAR", calling="BADSENDER", application=APPLICATION_CONTEXT,
                 version=1):
    """contexts: [(id, abstract syntax, [transfer syntaxes])]"""
    body = item(0x10, application.encode())
    for number, abstract, transfers in contexts:
        inner = struct.pack(">BBBB", number, 0, 0, 0) + item(0x30, abstract.encode())
        for t in transfers:
            inner += item(0x40, t.encode())
        body += item(0x20, inner)
    body += item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"2.25.1"))
    fixed = struct.pack(">HH", version, 0) + called.ljust(16).encode() + \
        calling.ljust(16).encode() + bytes(32)
    return pdu(1, fixed + body)


def pdu(kind, body):
    return struct.pack(">BBI", kind, 0, len(body)) + body


def pdata(context, flags, body):
    return pdu(4, struct.pack(">IBB", len(body) + 2, context, flags) + body)


def element(group, number, value):
    """Implicit VR little endian, padded to an even length."""
    if isinstance(value, str):
        value = value.encode()
        if len(value) % 2:
            value += b" " if group != 0 and number not in (0x0016, 0x0018) else b"\0"
    if isinstance(value, int):
        value = struct.pack("<H", value)
    if len(value) % 2:
        value += b"\0"
    return struct.pack("<HHI", group, number, len(value)) + value


def command_set(*fields):
    body = b"".join(element(0, number, value) for number, value in fields)
    return element(0, 0, struct.pack("<I", len(body))) + body


def store_rq(sop_class, sop_instance, message=1):
    uid = lambda text: (text + "\0" * (len(text) % 2)).encode()
    return command_set((0x0002, uid(sop_class)), (0x0100, 0x0001), (0x0110, message),
                       (0x0700, 0), (0x0800, 0x0000), (0x1000, uid(sop_instance)))


def ct_dataset(sop_instance, study="1.2.3.4", series="1.2.3.4.1", patient="SYNTH",
               sop_class=CT, tail=b""):
    """The smallest CT header the node can file, in Implicit VR LE."""
    uid = lambda text: (text + "\0" * (len(text) % 2)).encode()
    return b"".join([
        element(8, 0x0016, uid(sop_class)), element(8, 0x0018, uid(sop_instance)),
        element(8, 0x0020, "20200101"), element(8, 0x0060, "CT"),
        element(0x10, 0x0010, "PHANTOM^TEST"), element(0x10, 0x0020, patient),
        element(0x20, 0x000D, uid(study)), element(0x20, 0x000E, uid(series)),
        tail])


class Association:
    """One connection; `open` returns the first answer's PDU type."""

    def __init__(self, port, timeout=15):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.settimeout(timeout)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def read_exactly(self, n):
        got = b""
        while len(got) < n:
            more = self.socket.recv(n - len(got))
            if not more:
                raise EOFError(f"peer closed after {len(got)} of {n} bytes")
            got += more
        return got

    def read_pdu(self):
        kind, _, length = struct.unpack(">BBI", self.read_exactly(6))
        return kind, self.read_exactly(length)

    def read_to_end(self):
        """Everything until the peer closes; raises socket.timeout if it does not."""
        got = b""
        while True:
            try:
                more = self.socket.recv(65536)
            except ConnectionResetError:
                return got
            if not more:
                return got
            got += more

    def open(self, **options):
        contexts = options.pop("contexts", [(1, CT, [IMPLICIT_LE])])
        self.send(associate_rq(contexts, **options))
        return self.read_pdu()

    def release(self):
        self.send(pdu(5, bytes(4)))
        return self.read_pdu()[0]

    def store(self, sop_instance, dataset, sop_class=CT, message=1, split=16000):
        """Sends one C-STORE and returns the status, or the PDU type of an abort."""
        self.send(pdata(1, 3, store_rq(sop_class, sop_instance, message)))
        for at in range(0, max(len(dataset), 1), split):
            last = at + split >= len(dataset)
            self.send(pdata(1, 2 if last else 0, dataset[at:at + split]))
        kind, body = self.read_pdu()
        return status_of(body) if kind == 4 else f"PDU {kind}"


def status_of(pdata_body):
    """(0000,0900) of a response that fits one PDV."""
    body, at = pdata_body[6:], 0
    while at + 8 <= len(body):
        group, number, length = struct.unpack_from("<HHI", body, at)
        if (group, number) == (0, 0x0900):
            return struct.unpack_from("<H", body, at + 8)[0]
        at += 8 + length
    return None
