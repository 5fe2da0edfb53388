"""A power cut at any moment: what was answered with Success is there, whole, and
in the ledger; nothing torn is.

hepard runs on a disk that keeps what was synced (tests/fixture/powercut.c). After
a kill -9, everything that was not synced is thrown away or kept page by page and
name by name, as the dice fall, and hepard starts on what is left."""
import os
import random
import subprocess
import sys

import world
from world import Failure, double_node, need, small_study

PAGE = 4096
FALLS = 5  # of the dice, for each moment


def keys_of(folder):
    """{path: key as powercut.c names inodes} of a folder and all below it."""
    listed = subprocess.run(["find", folder, "-exec", "stat", "-c", "%i-%.9W %n", "{}", "+"],
                            stdout=subprocess.PIPE, text=True, check=True).stdout
    return {path: key for key, path in (line.split(" ", 1) for line in listed.splitlines())}


class Cut:
    """What a power cut leaves of `old`, put together in `new`."""

    def __init__(self, old, notes, new, dice):
        self.notes, self.dice = notes, dice
        keys = keys_of(old)
        self.paths = {key: path for path, key in keys.items()}
        self.folder(keys[old], new)

    def noted(self, name):
        path = os.path.join(self.notes, name)
        if not os.path.exists(path):
            return None
        with open(path, "rb") as f:
            return f.read()

    def names(self, key):
        synced = {name: k for k, name in (line.split(" ", 1) for line in (
            self.noted(key + ".dir") or b"").decode().splitlines())}
        path = self.paths.get(key)
        keys = {p: k for k, p in self.paths.items()}
        now = {n: keys[os.path.join(path, n)] for n in os.listdir(path)} if path else {}
        chosen = {}
        for name in sorted({*synced, *now}):
            one = synced.get(name) if self.dice.random() < 0.5 else now.get(name)
            if one:
                chosen[name] = one
        return chosen

    def folder(self, key, new):
        os.makedirs(new, mode=0o700)
        for name, child in self.names(key).items():
            path = self.paths.get(child, "")
            if os.path.isdir(path) or os.path.exists(f"{self.notes}/{child}.dir"):
                self.folder(child, os.path.join(new, name))
            elif os.path.isfile(path) or not path:
                self.file(child, path, os.path.join(new, name))

    def file(self, key, path, new):
        synced, now = self.noted(key) or b"", b""
        if path:
            with open(path, "rb") as f:
                now = f.read()
        size = len(self.dice.choice([synced, now])) if path else len(synced)
        out = bytearray(synced[:size].ljust(size, b"\0"))
        for at in range(0, size, PAGE):
            if path and self.dice.random() < 0.5:
                page = now[at:min(at + PAGE, size)]
                out[at:at + len(page)] = page
        with open(new, "wb") as f:
            f.write(out)


def take_apart(path):
    """SOP Instance UID and dataset of a file."""
    with open(path, "rb") as f:
        data = f.read()
    end = 144 + int.from_bytes(data[140:144], "little")
    at = data.find(b"\x02\x00\x03\x00UI", 0, end) + 8
    need(at >= 8, "a torn slice was taken for a whole one")
    size = int.from_bytes(data[at - 2:at], "little")
    return data[at:at + size].rstrip(b"\0").decode(), data[end:]


def run_until_dark(node, files, notes, point, lies):
    """Sends one by one; the UIDs that were answered with Success."""
    os.makedirs(notes)
    env = {"LD_PRELOAD": os.path.join(world.BUILD, "tests", "fixture", "libpowercut.so"),
           "POWERCUT_NOTES": notes, **({"HEPAR_CRASH_AT": point} if point else {}),
           **({"POWERCUT_LIES": ".dcm"} if lies else {})}
    node.start(env=env, wait=False)
    world.wait_until(lambda: not node.process.alive or node.listens(), 60, "no sign of life")
    acked = [take_apart(f)[0] for f in files
             if world.storescu(node, [f], check=False).returncode == 0]
    node.kill9()
    return acked


def what_is_left(node, sent):
    """UIDs in spool and ledger after a start; every file is as it was sent."""
    node.start()
    received = world.json.loads(node.ctl("--json", "status").stdout)["received"]
    node.kill9()
    left = {}
    for path in world.spooled(node):
        uid, dataset = take_apart(path)
        need(uid not in left, "an instance twice")
        need(dataset == sent[uid], "a torn slice was taken for a whole one")
        left[uid] = path
    need(received["stored"] == len(left),
         f"{received['stored']} in the ledger, {len(left)} in the spool")
    need(received["conflicts"] == 0, "a slice is in conflict with itself")
    return set(left)


def cut_at(folder, use, files, point, lies=False):
    """How many slices that were answered with Success are missing, over all falls."""
    node = use(double_node(folder, [], readiness={"quiet_s": 2 if point else 60}))
    sent = dict(map(take_apart, files))
    state, old = node.settings["state_dir"], folder + "/before"
    acked = run_until_dark(node, files, folder + "/notes", point, lies)
    os.rename(state, old)
    missing = 0
    for fall in range(FALLS):
        Cut(old, folder + "/notes", state, random.Random(f"{point} {fall}"))
        missing += len(set(acked) - what_is_left(node, sent))
        os.rename(state, f"{folder}/after{fall}")
    print(f"  {point or 'no point'}{', a lying disk' if lies else ''}: {len(acked)} answered, "
          f"{missing} missing", flush=True)
    return missing


POINTS = ["", "slice_marked:1", "slice_marked:7", "slice_durable:1", "slice_durable:7",
          "rows_committed:1", "rows_committed:7"]


def success_survives_a_cut_at_every_point(folder, use):
    files = world.dicom_files(small_study(folder + "/phantom")[0])[:12]
    for number, point in enumerate(POINTS):
        missing = cut_at(f"{folder}/node{number}", use, files, point)
        need(missing == 0, f"{point}: {missing} answered with Success and lost")


def a_disk_that_lies_is_noticed(folder, use):
    """The test of the test."""
    files = world.dicom_files(small_study(folder + "/phantom")[0])[:12]
    try:
        missing = cut_at(folder + "/node", use, files, "", lies=True)
    except Failure as words:
        print(f"  a lying disk: {words}")
        return
    need(missing > 0, "nothing was lost")


if __name__ == "__main__":
    if "HEPAR_SANITIZED" in os.environ:
        world.skip("a sanitizer wants to be the first that is preloaded")
    world.require_tools("storescu")
    sys.dont_write_bytecode = True
    world.main(success_survives_a_cut_at_every_point, a_disk_that_lies_is_noticed)
