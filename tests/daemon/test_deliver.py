"""hepar-sender against a real PACS: what is sent twice is there once.

    test_deliver.py HEPAR_SENDER MAKE_REPORT
"""
import json
import os
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import world  # noqa: E402


def send(sender, pacs, items):
    """One group of objects; the answers."""
    ours, theirs = socket.socketpair()
    child = subprocess.Popen([sender], stdin=subprocess.DEVNULL,
                             preexec_fn=lambda: os.dup2(theirs.fileno(), 3), pass_fds=(3,))
    theirs.close()
    peer = {"name": "pacs", "ae_title": pacs.ae, "host": "127.0.0.1", "port": pacs.dicom_port,
            "calling_ae": "HEPAR", "timeout_s": 30}
    line = json.dumps({"do": "send", "delivery_group": 1, "peer": peer, "items": items}) + "\n"
    ours.sendall(line.encode())
    answers = []
    for line in ours.makefile("r"):
        answer = json.loads(line)
        if answer["event"] == "group":
            break
        answers.append(answer)
    ours.close()
    world.need(child.wait(60) == 0, "the sender did not end when hepard hung up")
    return answers


def main():
    world.require_tools("Orthanc")
    sender, make_report = (os.path.abspath(p) for p in sys.argv[1:3])
    with tempfile.TemporaryDirectory() as folder:
        lines = subprocess.run([make_report, folder], check=True, capture_output=True,
                               text=True).stdout.splitlines()
        items = []
        for number, line in enumerate(lines):
            name, sop_class, instance = line.split()
            items.append({"delivery": number + 1, "path": os.path.join(folder, name),
                          "sop_class": sop_class, "sop_instance": instance})
        pacs = world.Orthanc(os.path.join(folder, "pacs"))
        try:
            pacs.start()
            for time in ("first", "second"):
                answers = send(sender, pacs, items)
                codes = [a["code"] for a in answers]
                world.need(codes == ["OK"] * len(items), f"{time} time: {answers}")
                there = sorted(i["SOPInstanceUID"] for i in pacs.instances())
                world.need(there == sorted(i["sop_instance"] for i in items),
                           f"{time} time: the PACS has {there}")
        finally:
            pacs.stop()
    print("sent twice, there once")


main()
