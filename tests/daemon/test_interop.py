"""The front door and other people's senders: whole series arrive bit by bit.

    test_interop.py storescu|dcmsend|gdcmscu|orthanc|pixelmed|echoscu HEPAR_DOOR
"""

import glob
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixture"))
import ct_files

SKIP = 77
COUNT = 12


def tool(name):
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if not path:
        print(f"{name} is not installed")
        sys.exit(SKIP)
    return path


class Door:
    def __init__(self, program, folder):
        self.folder = folder
        os.makedirs(folder)
        self.log = folder + ".log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen([program, folder, "TEST"], stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, stderr=log, text=True,
                                            env={**os.environ, "HEPAR_TEST_LOG": "1"})
        self.port = int(self.process.stdout.readline().split()[1])

    def finish(self):
        out, _ = self.process.communicate(timeout=30)
        with open(self.log) as f:
            log = f.read()
        assert self.process.returncode == 0, log[-3000:]
        for canary in ct_files.CANARIES:  # whatever was sent: no patient in the log
            assert canary not in log, log[-3000:]
        return json.loads(out.splitlines()[-1])

    def datasets(self):
        """The stored datasets without our file meta."""
        found = []
        for path in glob.glob(os.path.join(self.folder, "*.dcm")):
            with open(path, "rb") as f:
                data = f.read()
            if not data:
                continue  # a blank
            start = 144 + int.from_bytes(data[140:144], "little")
            found.append(data[start:])
        return sorted(found)


def expect_series(door, extra=0):
    sent = sorted(ct_files.dataset(n)[1] for n in range(1, COUNT + 1))
    got = door.datasets()
    assert len(got) == COUNT, f"{len(got)} files of {COUNT}"
    assert got == sent, "the bytes are not those that were sent"
    stats = door.finish()
    print(stats)
    assert stats["stored"] == COUNT and stats["refused"] == 0, stats
    assert stats["aborted"] == 0 and stats["timed_out"] == 0, stats


def run(args):
    done = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=120)
    assert done.returncode == 0, f"{args[0]}: {done.returncode}\n{done.stdout}"
    return done.stdout


def storescu(door, files, work):
    run([tool("storescu"), "-aet", "TEST", "-aec", "HEPAR", "127.0.0.1", str(door.port), *files])
    expect_series(door)


def dcmsend(door, files, work):
    run([tool("dcmsend"), "-aet", "TEST", "-aec", "HEPAR", "127.0.0.1", str(door.port), *files])
    expect_series(door)


def gdcmscu(door, files, work):
    # Debian 12's gdcmscu dies of its own exception after every release, storescp's
    # included; what counts is what has arrived by then.
    done = subprocess.run([tool("gdcmscu"), "--store", "--call", "HEPAR", "--aetitle", "TEST",
                           "127.0.0.1", str(door.port), *files], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=120)
    assert done.returncode in (0, -6), done.stdout
    expect_series(door)


def echoscu(door, files, work):
    run([tool("echoscu"), "-aet", "TEST", "-aec", "HEPAR", "127.0.0.1", str(door.port)])
    done = subprocess.run([tool("echoscu"), "-aet", "TEST", "-aec", "OTHER", "127.0.0.1",
                           str(door.port)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=60)
    assert done.returncode != 0 and "Called AE Title Not Recognized" in done.stdout, done.stdout
    done = subprocess.run([tool("echoscu"), "-aet", "NOBODY", "-aec", "HEPAR", "127.0.0.1",
                           str(door.port)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=60)
    assert done.returncode != 0 and "Calling AE Title Not Recognized" in done.stdout, done.stdout
    stats = door.finish()
    assert stats["associations"] == 1 and stats["rejected"] == 2, stats


def pixelmed(door, files, work):
    tool("java")
    jar = "/usr/share/java/pixelmed.jar"
    if not os.path.exists(jar):
        print("PixelMed is not installed")
        sys.exit(SKIP)
    path = ":".join([jar, *glob.glob("/usr/share/java/*.jar")])
    done = subprocess.run(
        ["java", "-cp", path, "com.pixelmed.network.StorageSOPClassSCU", "127.0.0.1",
         str(door.port), "HEPAR", "TEST", files[0]],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
    print(done.stdout[-2000:])
    stats = door.finish()
    assert stats["stored"] == 1, stats


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def orthanc(door, files, work):
    program, http = tool("Orthanc"), free_port()
    config = {
        "Name": "test", "StorageDirectory": work + "/orthanc", "IndexDirectory": work + "/orthanc",
        "HttpPort": http, "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
        "DicomServerEnabled": False, "DicomAet": "TEST", "Plugins": [],
        "DicomModalities": {"hepar": ["HEPAR", "127.0.0.1", door.port]},
    }
    with open(work + "/orthanc.json", "w") as f:
        json.dump(config, f)
    server = subprocess.Popen([program, work + "/orthanc.json"], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{http}"

    def post(path, body):
        request = urllib.request.Request(url + path, data=body, method="POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(url + "/system", timeout=5).read()
                break
            except OSError:
                time.sleep(0.1)
        ids = [post("/instances", open(p, "rb").read())["ID"] for p in files]
        post("/modalities/hepar/store", json.dumps(ids).encode())
    finally:
        server.terminate()
        server.wait()
    expect_series(door)


def main():
    name, program = sys.argv[1], sys.argv[2]
    work = tempfile.mkdtemp(prefix="hepar-interop-")
    door = None
    try:
        files = ct_files.write(work + "/series", COUNT)
        door = Door(program, work + "/spool")
        globals()[name](door, files, work)
    finally:
        if door and door.process.poll() is None:
            door.process.kill()
            door.process.wait()
        shutil.rmtree(work, ignore_errors=True)


main()
