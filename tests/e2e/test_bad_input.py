"""Bad input, one test a line: on the wire, on disk, in the study, in the
configuration. The daemon lives through all of it and says what it was."""
import os
import shutil
import socket
import subprocess
import sys
import time

import wire
import world
from world import double_node, need, run, small_study


def still_serves(node, number=[0]):
    """A good slice is still taken, on a new association."""
    number[0] += 1
    uid = f"1.2.3.9.{os.getpid()}.{number[0]}"
    with wire.Association(node.port) as a:
        need(a.open()[0] == 2, "no association any more")
        need(a.store(uid, wire.ct_dataset(uid)) == 0, "a good slice is refused")
        need(a.release() == 6, "no release")


def associates(node):
    with wire.Association(node.port) as a:
        return a.open()[0] == 2


def wire_node(folder, use, **changes):
    return use(double_node(folder + "/node", [], **changes)).start()


# ---- negotiation ------------------------------------------------------------

def rejections_carry_the_right_reason(folder, use):
    node = wire_node(folder, use, intake={"allow": [{"ae_title": "SCANNER", "address": "127.0.0.1"}]})
    cases = [
        ({"called": "NOBODY", "calling": "SCANNER"}, (1, 1, 7), "NOBODY"),
        ({"calling": "STRANGER"}, (1, 1, 3), "STRANGER"),
        ({"calling": "SCANNER", "application": "1.2.3"}, (1, 1, 2), "SCANNER"),
        ({"calling": "SCANNER", "version": 2}, (1, 2, 2), "SCANNER"),
    ]
    for options, reason, name in cases:
        lines = len(node.log().splitlines())
        with wire.Association(node.port) as a:
            kind, body = a.open(**options)
            need(kind == 3, f"{options}: answered by PDU {kind}")
            need(tuple(body[1:4]) == reason, f"{options}: rejected with {tuple(body[1:4])}")
        added = node.log().splitlines()[lines:]
        need(sum(name in l for l in added) == 1, f"{options}: not one line naming it: {added}")


def an_unknown_host_is_rejected(folder, use):
    node = wire_node(folder, use, intake={"allow": [{"ae_title": "*", "address": "10.1.0.0/16"}]})
    with wire.Association(node.port) as a:
        kind, body = a.open(calling="SCANNER")
        need((kind, tuple(body[1:4])) == (3, (1, 1, 3)), f"{kind} {tuple(body[1:4])}")


def a_foreign_abstract_syntax_is_refused_alone(folder, use):
    node = wire_node(folder, use)
    with wire.Association(node.port) as a:
        kind, body = a.open(contexts=[(1, "1.2.840.10008.5.1.4.1.1.4", [wire.IMPLICIT_LE]),
                                      (3, wire.CT, [wire.IMPLICIT_LE])])
        need(kind == 2, "the association was not accepted")
        results = {}
        at = 68
        while at < len(body):
            length = int.from_bytes(body[at + 2:at + 4], "big")
            if body[at] == 0x21:
                results[body[at + 4]] = body[at + 6]
            at += 4 + length
        need(results == {1: 3, 3: 0}, f"context results {results}")
        a.release()


# ---- what is not DICOM at all -----------------------------------------------

def strangers_on_the_port_are_closed(folder, use):
    node = wire_node(folder, use, intake={"artim_s": 2})
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200))
    for name, data in (("http", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), ("tls", hello),
                       ("random", bytes((i * 37 + 11) % 256 for i in range(4000))),
                       ("silence", b"")):
        with wire.Association(node.port, timeout=8 * world.SLOW) as a:
            try:
                a.send(data)
                a.read_to_end()
            except (ConnectionResetError, BrokenPipeError):
                pass
            except socket.timeout:
                raise world.Failure(f"{name}: still open after the deadline")
    still_serves(node)


# ---- datasets ---------------------------------------------------------------

def bad_datasets_get_a_status_and_leave_nothing(folder, use):
    node = wire_node(folder, use)
    good = wire.ct_dataset("1.2.3.5.1")
    nested = b"".join(b"\x40\x00\x75\xa3\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
                      for _ in range(5000))
    cases = [
        ("cut off inside an element", "1.2.3.5.1", good[:-3], {0xC000}),
        ("nested without end", "1.2.3.5.1", good + nested, {0xC000}),
        ("longer than declared", "1.2.3.5.1",
         good + b"\xe0\x7f\x10\x00\x00\x00\x00\x40" + bytes(1000), {0xC000}),
        ("another SOP instance than the command", "1.2.3.5.2", good, {0xA900}),
        ("no UIDs", "1.2.3.5.1", wire.element(8, 0x0060, "CT"), {0xC000, 0xA900}),
        ("empty", "1.2.3.5.1", b"", {0xC000, 0xA900}),
    ]
    for name, uid, dataset, wanted in cases:
        with wire.Association(node.port) as a:
            need(a.open()[0] == 2, f"{name}: no association")
            status = a.store(uid, dataset)
            need(status in wanted, f"{name}: status {status if isinstance(status, str) else hex(status or 0)}")
        need(world.spooled(node) == [], f"{name}: left {world.spooled(node)}")
    with wire.Association(node.port) as a:  # the line is cut in the middle of a slice
        need(a.open()[0] == 2, "no association")
        a.send(wire.pdata(1, 3, wire.store_rq(wire.CT, "1.2.3.5.1")))
        a.send(wire.pdata(1, 0, good[:40]))
    world.wait_until(lambda: world.spooled(node) == [], 20, "the cut slice stays")
    still_serves(node)


def same_uid_other_bytes_goes_to_quarantine(folder, use):
    node = wire_node(folder, use)
    with wire.Association(node.port) as a:
        a.open()
        first, other = (wire.ct_dataset("1.2.3.6.1", tail=wire.element(0x20, 0x13, n))
                        for n in ("1 ", "2 "))
        need(a.store("1.2.3.6.1", first) == 0, "first")
        need(a.store("1.2.3.6.1", first) == 0, "duplicate")
        need(a.store("1.2.3.6.1", other) == 0, "other bytes are still answered 0000")
        a.release()
    need(len(world.spooled(node)) == 1, f"the spool holds {len(world.spooled(node))}")
    quarantine = os.path.join(node.settings["state_dir"], "quarantine")
    need(len(os.listdir(quarantine)) == 1, "nothing in quarantine")


# ---- disk -------------------------------------------------------------------

def a_full_disk_is_a700_and_service_comes_back(folder, use):
    """The state lies on a small tmpfs, in a mount namespace of our own."""
    inside = os.environ.get("HEPAR_E2E_NAMESPACE")
    if not inside:
        done = subprocess.run(["unshare", "-rm", sys.executable, os.path.abspath(__file__),
                               "a_full_disk_is_a700_and_service_comes_back"],
                              env={**os.environ, "HEPAR_E2E_NAMESPACE": "1"},
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if "unshare" in done.stdout and "failed" in done.stdout:
            print("  no mount namespace here:", done.stdout.strip().splitlines()[-1])
            return
        need(done.returncode == 0, done.stdout[-1500:])
        return
    state = os.path.join(folder, "small")
    os.makedirs(state)
    run("mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", state)
    node = wire_node(folder, use, state_dir=os.path.join(state, "state"),
                     intake={"disk_reserve_bytes": "1 MiB"})
    tail = b"\xe0\x7f\x10\x00" + (512 * 512 * 2).to_bytes(4, "little") + bytes(512 * 512 * 2)
    statuses = []
    with wire.Association(node.port) as a:
        need(a.open()[0] == 2, "no association")
        for number in range(24):
            uid = f"1.2.3.7.{number}"
            statuses.append(a.store(uid, wire.ct_dataset(uid, tail=tail)))
    need(statuses[0] == 0 and statuses[-1] == 0xA700, f"statuses {statuses}")
    need(set(statuses) == {0, 0xA700}, f"statuses {statuses}")
    held = len(world.spooled(node))
    need(held == statuses.count(0), f"{held} files for {statuses.count(0)} Successes")
    run("mount", "-o", "remount,size=64m", state)
    world.wait_until(lambda: associates(node), 20, "still refused, with room again")
    still_serves(node)
    run("umount", "-l", state)


# ---- studies ----------------------------------------------------------------

def edit(study, out, change):
    """A copy of a phantom study; change(dataset, truth index) returns False to drop a slice."""
    import pydicom
    os.makedirs(out)
    for number, path in enumerate(world.dicom_files(study)):
        ds = pydicom.dcmread(path)
        if change(ds, number) is not False:
            ds.save_as(os.path.join(out, f"{number:04d}.dcm"))
    return out


def real_worker(folder, use, **changes):
    world.require_bundle()
    pacs = use(world.Orthanc(folder + "/pacs")).start()
    node = use(world.Node(folder + "/node", [world.peer_of(pacs)], changes=changes)).start()
    return node, pacs


def unsuitable(folder, use, change, words):
    node, pacs = real_worker(folder, use)
    study, uid = world.phantom(folder + "/phantom", 11, 24)
    broken = edit(study, folder + "/broken", change)
    world.storescu(node, broken)
    shown = node.wait(uid)
    need(shown["state"] == "unsuitable", f"ended as {shown['state']}: {shown.get('reason')}")
    reason = (shown["reason"] + " " + shown.get("reason_code", "")).lower()
    need(any(w in reason for w in words), f"the reason says: {reason}")
    time.sleep(1)
    need(not pacs.instances(), "something was sent")
    need(node.ctl("wait", uid, "--timeout", "5").returncode == 1, "wait: unsuitable is exit code 1")


def description_of(ds):
    return str(ds.get("SeriesDescription", "")).upper()


def venous(ds):
    return any(w in description_of(ds) for w in ("VEN", "PORTAL", "PV"))


def a_missing_slice_is_unsuitable(folder, use):
    def change(ds, _):
        # One slice out of the middle of each phase: whichever is venous has a gap.
        return ds.InstanceNumber % 24 != 12
    unsuitable(folder, use, change, ["missing", "gap", "spacing"])


def a_tilted_gantry_is_unsuitable(folder, use):
    def change(ds, _):
        ds.ImageOrientationPatient = [1, 0, 0, 0, 0.9063078, -0.4226183]
    unsuitable(folder, use, change, ["tilt", "gantry", "shear", "orient"])


def no_venous_phase_is_unsuitable(folder, use):
    unsuitable(folder, use, lambda ds, _: not venous(ds), ["venous"])


def two_patients_in_one_study_fail(folder, use):
    def change(ds, number):
        if number % 2:
            ds.PatientID = "SOMEBODY-ELSE"
    node, pacs = real_worker(folder, use)
    study, uid = world.phantom(folder + "/phantom", 11, 24)
    world.storescu(node, edit(study, folder + "/mixed", change))
    shown = node.wait(uid)
    need(shown["state"] == "failed", f"ended as {shown['state']}: {shown.get('reason')}")
    need("patient" in (shown["reason"] + shown.get("reason_code", "")).lower(), shown["reason"])
    need("SOMEBODY-ELSE" not in node.log() + str(shown), "a patient's ID in log or ledger")
    need(not pacs.instances(), "something was sent")


# ---- bundle and configuration -----------------------------------------------

def starts(node):
    """(exit code, output) of a start that must fail."""
    done = run(world.program("hepard"), "--config", node.config, check=False, timeout=60)
    return done.returncode, done.stdout


def an_unknown_key_is_refused_with_its_line(folder, use):
    node = double_node(folder + "/node", [])
    with open(node.config, "a") as f:
        f.write("readynes:\n  quiet_s: 3\n")
    line = sum(1 for _ in open(node.config)) - 1
    code, said = starts(node)
    need(code != 0 and node.config in said and f":{line}" in said and "readynes" in said, said)
    node.write_config()
    with open(node.config, "a") as f:
        f.write("log_level: 7\n")
    code, said = starts(node)
    need(code != 0 and "log_level" in said, said)


def a_damaged_bundle_is_refused(folder, use):
    world.require_bundle()
    bundle = os.path.join(folder, "bundle")
    shutil.copytree(world.BUNDLE, bundle)
    weights = sorted(n for n in os.listdir(bundle) if n.endswith(".safetensors"))
    path = os.path.join(bundle, weights[0])
    os.chmod(path, 0o644)
    with open(path, "r+b") as f:
        f.seek(-5, os.SEEK_END)
        byte = f.read(1)
        f.seek(-5, os.SEEK_END)
        f.write(bytes([byte[0] ^ 1]))
    node = world.Node(folder + "/node", changes={"reading": {"bundle": bundle}})
    code, said = starts(node)
    need(code != 0 and weights[0] in said, said)


if __name__ == "__main__":
    world.require_tools("storescu", "Orthanc")
    world.main(
        rejections_carry_the_right_reason, an_unknown_host_is_rejected,
        a_foreign_abstract_syntax_is_refused_alone, strangers_on_the_port_are_closed,
        bad_datasets_get_a_status_and_leave_nothing, same_uid_other_bytes_goes_to_quarantine,
        a_full_disk_is_a700_and_service_comes_back, a_missing_slice_is_unsuitable,
        a_tilted_gantry_is_unsuitable, no_venous_phase_is_unsuitable,
        two_patients_in_one_study_fail, an_unknown_key_is_refused_with_its_line,
        a_damaged_bundle_is_refused)
