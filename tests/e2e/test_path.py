"""The whole path with the real programs: stock storescu, hepard, the networks,
the report and key images in a real PACS, and what must not happen afterwards."""
import json
import os
import re
import signal
import time

import world
from world import Failure, need, run

SLICES = 60


def fetched(pacs, picture, folder):
    path = os.path.join(folder, picture["SOPInstanceUID"] + ".dcm")
    with open(path, "wb") as f:
        f.write(pacs.raw(f"/instances/{picture['orthanc_id']}/file"))
    return path


def check_validators(paths):
    for path in paths:
        said = run("dciodvfy", path, check=False).stdout
        errors = [l for l in said.splitlines() if l.startswith("Error")]
        need(not errors, f"dciodvfy: {errors[:3]}")


def check_promised_keys(shown):
    for key in ("study_uid", "revision", "state", "reason", "series", "phases", "registration",
                "candidates", "primary", "results", "timings_ms", "bundle", "device"):
        need(key in shown, f"show --json lacks {key}")
    need({"name", "sha256"} <= set(shown["bundle"]), "bundle lacks name or sha256")
    for result in shown["results"]:
        need({"kind", "sop_instance_uid", "deliveries"} <= set(result), f"result {result}")
    for series in shown["series"]:
        need(series.get("uid") and (series.get("role", "-") != "-" or series.get("why")),
             f"a series without a word: {series}")


def check_objects(pacs, uid, study_folder, folder):
    import pydicom
    source = pydicom.dcmread(world.dicom_files(study_folder)[0], stop_before_pixels=True)
    stored = pacs.instances()
    reports = [i for i in stored if i["SOPClassUID"] in world.SR_CLASSES]
    pictures = [i for i in stored if i["SOPClassUID"] == world.SECONDARY_CAPTURE]
    need(len(reports) == 1, f"{len(reports)} reports in the PACS")
    need(len(pictures) >= 1, "no key image in the PACS")
    need(len(stored) == len(reports) + len(pictures), "something else was sent")
    there = {pydicom.dcmread(f, specific_tags=["SOPInstanceUID"]).SOPInstanceUID
             for f in world.dicom_files(study_folder)} | {i["SOPInstanceUID"] for i in stored}
    named = set(re.findall(r'"ReferencedSOPInstanceUID": "([0-9.]+)"', json.dumps(stored)))
    need(named and named <= there, "the results name an image that was not sent")
    paths = [fetched(pacs, i, folder) for i in stored]
    for path in paths:
        ds = pydicom.dcmread(path)
        need(ds.StudyInstanceUID == uid, "study UID differs")
        need(ds.PatientID == source.PatientID and ds.PatientName == source.PatientName,
             "patient differs")
        need(re.match(r"2\.25\.\d+$", ds.SOPInstanceUID), "UID is not name-based")
        text = run("dcmdump", "+L", path).stdout.lower()
        need("research use" in text, f"{path} does not say research use only")
    if world.shutil.which("dciodvfy"):
        check_validators(paths)
    dumped = run("dsrdump", fetched(pacs, reports[0], folder)).stdout
    need(("Imaging Measurement Report" in dumped) or ("AI analysis note" in dumped),
         "dsrdump does not show our report:\n" + dumped[:500])


def study_to_report(folder, use):
    """One study in, one report out; then everything that must change nothing."""
    world.require_bundle()
    pacs = use(world.Orthanc(folder + "/pacs")).start()
    node = use(world.Node(folder + "/node", [world.peer_of(pacs)],
                          changes={"readiness": {"phases": ["NC", "A", "V", "D"]}})).start()
    study, uid = world.phantom(folder + "/phantom", 7, SLICES)
    world.storescu(node, study)
    shown = node.wait(uid)
    need(shown["state"] == "sent", f"ended as {shown['state']}: {shown.get('reason')}")
    check_promised_keys(shown)
    check_objects(pacs, uid, study, folder)
    count = len(pacs.instances())

    # The same study again, and our own results as a PACS rule would return them.
    world.storescu(node, study)
    ours = [fetched(pacs, i, folder) for i in pacs.instances()]
    world.storescu(node, ours, "-R")
    again = node.wait(uid)
    need(again["state"] == "sent" and again["revision"] == shown["revision"],
         "a duplicate opened a new revision")
    need(len(pacs.instances()) == count, "something was sent twice")
    need(len(json.loads(node.ctl("--json", "jobs").stdout)) == 1, "a second job")

    # heparctl reads the ledger when the daemon is down; 3 is "not found".
    need(node.stop() == 0, "hepard did not end cleanly")
    need(node.show(uid)["state"] == "sent", "heparctl needs the daemon for show")
    need(node.ctl("show", "1.2.3.404").returncode == 3, "not found is not exit code 3")
    need(node.ctl("nonsense").returncode == 2, "usage is not exit code 2")

    # A restart sends nothing again.
    node.start()
    need(node.wait(uid)["state"] == "sent", "state lost over a restart")
    need(len(pacs.instances()) == count, "a restart sent something again")
    for name in ("PHANTOM^", "PatientName"):
        need(name not in node.log(), "a patient's name in the log")


def workers_of(node):
    """Process ids of the node's hepar-worker children."""
    pid = node.process.child.pid
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        children = [int(c) for c in f.read().split()]
    names = {}
    for child in children:
        try:
            with open(f"/proc/{child}/comm") as f:
                names[child] = f.read().strip()
        except OSError:
            continue
    return [c for c, name in names.items() if name == "hepar-worker"]


def killed_while_reading(folder, use):
    """kill -9 of the real worker while it reads, then of the daemon while the next
    worker reads; the report arrives, once."""
    world.require_bundle()
    pacs = use(world.Orthanc(folder + "/pacs")).start()
    node = use(world.Node(folder + "/node", [world.peer_of(pacs)])).start()
    study, uid = world.phantom(folder + "/phantom", 7, SLICES)
    world.storescu(node, study)
    running = lambda: (node.show(uid) or {}).get("state") == "running" and workers_of(node)
    first = world.wait_until(running, 60, "never running")[0]
    time.sleep(0.5)  # a quiet machine reads the whole study in a few seconds
    os.kill(first, signal.SIGKILL)
    world.wait_until(lambda: running() and workers_of(node) != [first], 60, "no second worker")
    time.sleep(0.3)
    second = workers_of(node)
    node.kill9()
    world.wait_until(lambda: not any(os.path.exists(f"/proc/{w}") for w in second), 10,
                     "the worker outlived its daemon")
    node.start()
    shown = node.wait(uid)
    need(shown["state"] == "sent", f"ended as {shown['state']}: {shown.get('reason')}")
    reports = [i for i in pacs.instances() if i["SOPClassUID"] in world.SR_CLASSES]
    need(len(reports) == 1, f"{len(reports)} reports in the PACS")
    for where, _, names in os.walk(node.settings["state_dir"]):
        need(not any(n.endswith(".part") for n in names), f"{where}: a part is left")


if __name__ == "__main__":
    world.require_tools("storescu", "dsrdump", "Orthanc")
    world.main(study_to_report, killed_while_reading)
