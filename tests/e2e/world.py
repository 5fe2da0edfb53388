"""A world in a few lines: a node, a PACS, a synthetic patient, stock senders.

Everything lives below one folder, listens on loopback only, and is gone when
the `with` block ends, also after Ctrl-C. Python 3 of the system, no packages.
"""
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("HEPAR_BUILD", os.path.join(ROOT, "build"))
BUNDLE = os.environ.get("HEPAR_BUNDLE", os.path.join(ROOT, "models", "small"))
SKIP = 77
SLOW = 4 if os.environ.get("HEPAR_SANITIZED") else 1  # patience under sanitizers


class Failure(Exception):
    """What a test says when the world is not as promised."""


class Skip(Exception):
    """What one test says when it cannot be run here."""


def need(condition, words):
    if not condition:
        raise Failure(words)


def skip(words):
    print("SKIP:", words)
    sys.exit(SKIP)


def require_tools(*names):
    for name in names:
        if shutil.which(name) is None and not os.path.exists("/usr/sbin/" + name):
            skip(f"{name} is not installed")


def require_bundle():
    if not os.path.exists(os.path.join(BUNDLE, "bundle.yaml")):
        raise Skip(f"no bundle at {BUNDLE}")


def program(name):
    """A program of ours, wherever the build put it."""
    for folder in ("daemon", "tests/phantom", "bench", ""):
        path = os.path.join(BUILD, folder, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    skip(f"{name} was not built")


def free_port(preferred=0):
    """A free loopback port; `preferred` where nobody has it."""
    for port in (preferred, 0):
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
                return s.getsockname()[1]
            except OSError:
                continue
    raise Failure("no free port")


def wait_until(condition, seconds, words):
    """Polls; the interval grows, so that waiting costs nothing."""
    end, pause = time.monotonic() + seconds * SLOW, 0.02
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failure(f"gave up after {seconds * SLOW} s: {words}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.5)


def run(*command, check=True, timeout=120, env=None, cwd=None):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace", timeout=timeout * SLOW,
                          env={**os.environ, **(env or {})}, cwd=cwd)
    if check and done.returncode != 0:
        raise Failure(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-2000:]}")
    return done


def die_with_us():
    """Runs in a child before exec: it must not outlive us (PR_SET_PDEATHSIG)."""
    import ctypes
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Process:
    """A child in its own session, its output in a file, stopped for certain."""

    def __init__(self, command, log, env=None):
        self.log = log
        with open(log, "ab") as out:
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out,
                                          stderr=out, env={**os.environ, **(env or {})},
                                          preexec_fn=die_with_us)

    @property
    def alive(self):
        return self.child.poll() is None

    def stop(self, seconds=20):
        if self.alive:
            self.child.terminate()
            try:
                self.child.wait(seconds * SLOW)
            except subprocess.TimeoutExpired:
                self.child.kill()
        return self.child.wait()

    def kill9(self):
        if self.alive:
            self.child.kill()
        return self.child.wait()

    def output(self):
        with open(self.log, errors="replace") as f:
            return f.read()


class Orthanc:
    """Debian's Orthanc as the PACS: takes DICOM from one AE title at 127.0.0.1,
    HTTP from loopback, no plugins."""

    def __init__(self, folder, from_ae="HEPAR", dicom_port=0, http_port=0, extra=None):
        os.makedirs(folder, exist_ok=True)
        self.folder, self.ae = folder, "PACS"
        self.dicom_port = dicom_port or free_port()
        self.http_port = http_port or free_port()
        self.process = None
        settings = {
            "Name": "hepar test PACS",
            "StorageDirectory": os.path.join(folder, "storage"),
            "IndexDirectory": os.path.join(folder, "storage"),
            "Plugins": [],
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAet": self.ae,
            "DicomPort": self.dicom_port,
            "DicomCheckCalledAet": True,
            "DicomAlwaysAllowEcho": False,
            "DicomAlwaysAllowStore": False,
            "DicomCheckModalityHost": True,
            # The last number is where this AE listens; nothing is sent there.
            "DicomModalities": {"hepar": [from_ae, "127.0.0.1", 11112]},
            "OverwriteInstances": False,
            "ConcurrentJobs": 1,
            "StableAge": 1,
            **(extra or {}),
        }
        self.config = os.path.join(folder, "orthanc.json")
        with open(self.config, "w") as f:
            json.dump(settings, f, indent=2)

    def start(self):
        self.process = Process(["Orthanc" if shutil.which("Orthanc") else "/usr/sbin/Orthanc",
                                self.config], os.path.join(self.folder, "orthanc.log"))
        wait_until(self.answers, 60, "Orthanc does not answer; see " + self.process.log)
        return self

    def answers(self):
        need(self.process.alive, "Orthanc ended:\n" + self.process.output()[-1500:])
        try:
            return self.get("/system")
        except (OSError, urllib.error.URLError):
            return None

    def stop(self):
        if self.process:
            self.process.stop()

    def raw(self, path, accept=None, body=None):
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", body)
        if accept:
            request.add_header("Accept", accept)
        # No proxy, whatever the environment says: this is loopback.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=120 if body else 30) as answer:
            return answer.read()

    def get(self, path):
        return json.loads(self.raw(path))

    def post(self, path, body):
        """`body` is bytes, or what becomes JSON."""
        return json.loads(self.raw(path, body=body if isinstance(body, bytes)
                                   else json.dumps(body).encode()))

    def forward(self, to, resources):
        """C-STOREs what it holds to a modality it knows, as a routing rule does."""
        answer = self.post(f"/modalities/{to}/store", {"Resources": resources})
        need(answer["FailedInstancesCount"] == 0, f"the PACS could not forward: {answer}")
        return answer["InstancesCount"]

    def instances(self):
        """One dict of main tags per stored instance, with Orthanc's own id."""
        found = []
        for one in self.get("/instances"):
            tags = self.get(f"/instances/{one}/simplified-tags")
            tags["orthanc_id"] = one
            found.append(tags)
        return found

    def of_class(self, sop_class):
        return [i for i in self.instances() if i.get("SOPClassUID") == sop_class]


SR_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.88.11", "1.2.840.10008.5.1.4.1.1.88.22",
    "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.88.34",
}
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def yaml_of(value, indent=0):
    """The small part of YAML that our configuration needs."""
    pad, lines = "  " * indent, []
    for key, v in value.items():
        if isinstance(v, dict):
            lines += [f"{pad}{key}:", yaml_of(v, indent + 1)]
        elif isinstance(v, list):
            lines.append(f"{pad}{key}:" + ("" if v else " []"))
            for item in v:
                lines.append(f"{pad}  - {json.dumps(item)}")
        else:
            lines.append(f"{pad}{key}: {json.dumps(v)}")
    return "\n".join(line for line in lines if line)


def merged(base, changes):
    """`changes` laid over `base`, dict by dict."""
    out = dict(base)
    for key, v in (changes or {}).items():
        out[key] = merged(out.get(key) or {}, v) if isinstance(v, dict) else v
    return out


class Node:
    """hepard with its folder: start, kill, start again; heparctl beside it."""

    def __init__(self, folder, peers=(), port=0, changes=None):
        os.makedirs(folder, exist_ok=True)
        self.folder, self.ae = folder, "HEPAR"
        self.port = port or free_port()
        self.process, self.starts = None, 0
        self.settings = merged({
            "state_dir": os.path.join(folder, "state"),
            "ae_title": self.ae,
            "listen": "127.0.0.1",
            "port": self.port,
            "intake": {"allow": [{"ae_title": "*", "address": "127.0.0.1"}],
                       "disk_reserve_bytes": "1 MiB"},
            "readiness": {"quiet_s": 2, "max_wait_s": 120, "phases": []},
            "reading": {"bundle": BUNDLE, "device": "cpu"},
            "delivery": {"backoff_min_s": 1, "backoff_max_s": 2},
            "peers": list(peers),
        }, changes)
        self.config = os.path.join(folder, "hepar.yaml")
        self.write_config()

    def write_config(self):
        with open(self.config, "w") as f:
            f.write(yaml_of(self.settings) + "\n")
        os.chmod(self.config, 0o600)

    def start(self, env=None, wait=True):
        self.starts += 1
        self.process = Process([program("hepard"), "--config", self.config],
                               os.path.join(self.folder, "hepard.log"), env)
        if wait:
            wait_until(self.listens, 60, "hepard does not listen")
        return self

    def listens(self):
        need(self.process.alive, "hepard ended:\n" + self.process.output()[-1500:])
        with socket.socket() as s:
            s.settimeout(1)
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self):
        return self.process.stop() if self.process else 0

    def kill9(self):
        return self.process.kill9()

    def ctl(self, *words, timeout=120):
        return run(program("heparctl"), "--config", self.config, *words, check=False,
                   timeout=timeout)

    def show(self, study):
        """heparctl show --json, or None while it does not know the study."""
        done = self.ctl("--json", "show", study)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def wait(self, study, seconds=300):
        """Waits for an end state and returns `show`."""
        done = self.ctl("wait", study, "--timeout", str(seconds * SLOW), timeout=seconds + 30)
        shown = self.show(study)
        need(shown is not None, f"heparctl does not know {study}:\n{done.stdout[-1500:]}")
        return shown

    def log(self):
        return self.process.output()


def peer_of(pacs, name="pacs", **more):
    return {"name": name, "ae_title": pacs.ae, "host": "127.0.0.1", "port": pacs.dicom_port,
            **more}


def phantom(folder, seed=1, slices=60, *more):
    """A synthetic patient at `folder`; returns (folder, study UID). Rendered once
    for a build and linked from there: same seed, same bytes."""
    name = "-".join(["phantom", str(seed), str(slices), *more]).replace("/", "_")
    kept = os.path.join(BUILD, "e2e", name)
    newer = os.path.getmtime(program("hepar-phantom"))
    truth = os.path.join(kept, "truth.json")
    if not os.path.exists(truth) or os.path.getmtime(truth) < newer:
        shutil.rmtree(kept, ignore_errors=True)
        os.makedirs(os.path.dirname(kept), exist_ok=True)
        part = tempfile.mkdtemp(prefix="part.", dir=os.path.dirname(kept))
        run(program("hepar-phantom"), "--seed", str(seed), "--slices", str(slices), *more,
            "--out", os.path.join(part, "p"), timeout=300)
        try:
            os.rename(os.path.join(part, "p"), kept)
        except OSError:  # another test was quicker
            pass
        shutil.rmtree(part, ignore_errors=True)
    if not os.path.exists(folder):
        os.symlink(kept, folder)
    with open(truth) as f:
        return folder, json.load(f)["study_uid"]


def small_study(folder):
    """Enough slices for the ledger; too few for the networks."""
    return phantom(folder, 3, 4)


def double_node(folder, peers, **changes):
    """A node whose worker is a double: done at once, without reading a pixel."""
    double = os.path.join(ROOT, "tests", "e2e", "worker_double.py")
    return Node(folder, peers, changes=merged(
        {"reading": {"worker_program": double}, "readiness": {"quiet_s": 1}}, changes))


def spooled(node):
    """Every file in a node's spool but the blanks, which are empty."""
    spool = os.path.join(node.settings["state_dir"], "spool")
    return sorted(e.path for e in os.scandir(spool) if e.stat().st_size)


def dicom_files(folder):
    found = []
    for path, _, names in os.walk(os.path.realpath(folder)):
        for name in sorted(names):
            full = os.path.join(path, name)
            with open(full, "rb") as f:
                if f.read(132)[128:] == b"DICM":
                    found.append(full)
    return found


def storescu(node, folder_or_files, *options, check=True, calling="SCANNER", called=None):
    """Stock storescu; DICOM files only, so that truth.json is not in its way."""
    files = folder_or_files if isinstance(folder_or_files, list) else dicom_files(folder_or_files)
    return run("storescu", "-aet", calling, "-aec", called or node.ae, *options, "127.0.0.1",
               str(node.port), *files, check=check, timeout=300)


@contextlib.contextmanager
def world(keep=False):
    """A folder that is removed at the end, and a way to register what must stop."""
    folder = tempfile.mkdtemp(prefix="hepar-e2e.", dir=os.environ.get("HEPAR_TEST_TMP"))
    with contextlib.ExitStack() as stack:
        if not keep:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder, lambda thing: (stack.callback(thing.stop), thing)[1]


def main(*tests):
    """Runs test functions one after the other; each is called with a fresh world."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    wanted = sys.argv[1:]
    failed = skipped = ran = 0
    for test in tests:
        if wanted and test.__name__ not in wanted:
            continue
        started, ran = time.monotonic(), ran + 1
        try:
            with world(keep=bool(os.environ.get("HEPAR_KEEP"))) as (folder, use):
                test(folder, use)
            verdict = "ok"
        except Failure as words:
            failed += 1
            verdict = f"FAILED: {words}"
        except Skip as words:
            skipped += 1
            verdict = f"skipped: {words}"
        print(f"{test.__name__}: {verdict} ({time.monotonic() - started:.1f} s)", flush=True)
    sys.exit(1 if failed else SKIP if skipped == ran else 0)
