"""./dev demo: a synthetic four-phase liver study travels through the real system.

Stock storescu is the scanner: it sends a phantom patient to a real PACS
(Debian's Orthanc), which forwards the study to hepar, as a routing rule does.
hepar reads it and stores a structured report and key images beside the CT in
that PACS, from which this program fetches what it prints. Everything listens on
loopback. The state stays in build/demo, so a second run finds it all there.
"""
import argparse
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys

import world
from world import Failure, need, run

SEED, SLICES = 7, 60
BOLD, PLAIN = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")


def say(words):
    print(f"\n{BOLD}== {words}{PLAIN}", flush=True)


def held(pacs, uid, level="Series"):
    """What the PACS holds of the study."""
    return pacs.post("/tools/find", {"Level": level, "Expand": True,
                                     "Query": {"StudyInstanceUID": uid}})


def counted(pacs, uid):
    """(CT images, results) in the PACS."""
    count = {True: 0, False: 0}
    for series in held(pacs, uid):
        count[series["MainDicomTags"]["Modality"] == "CT"] += len(series["Instances"])
    return count[True], count[False]


def scan(pacs, files, uid, again):
    if counted(pacs, uid)[0] >= len(files) and not again:
        print("The PACS already holds this study; the scanner does not send it a second time.")
        return
    # Without TCP_NODELAY each slice of a stock storescu waits 40 ms for an acknowledgement.
    run("storescu", "-R", "-aet", "SCANNER", "-aec", pacs.ae, "127.0.0.1",
        str(pacs.dicom_port), *files, env={"TCP_NODELAY": "1"})
    print(f"{len(files)} images stored in the PACS.")


def route(pacs, node, slices, uid, again):
    known = node.show(uid)
    # An earlier run that was interrupted left a part; what is known is harmless to send.
    if known and known["received"]["stored"] >= slices and not again:
        print("hepar already holds this study, so the PACS does not send it a second time.")
        return
    sent = pacs.forward("hepar", [study["ID"] for study in held(pacs, uid, "Study")])
    print(f"{sent} objects taken by hepar, each image durable before its Success.")


def results_in(pacs, uid):
    """Main tags of each of hepar's objects in the PACS, with Orthanc's id."""
    return [{**pacs.get(f"/instances/{one}/simplified-tags"), "orthanc_id": one}
            for series in held(pacs, uid) if series["MainDicomTags"]["Modality"] != "CT"
            for one in series["Instances"]]


def check_references(pacs, uid, results):
    """A viewer must find every image that the report and the key images name."""
    named = set(re.findall(r'"ReferencedSOPInstanceUID": "([0-9.]+)"', json.dumps(results)))
    there = {i["MainDicomTags"]["SOPInstanceUID"] for i in held(pacs, uid, "Instance")}
    need(named and named <= there, f"{len(named - there)} of the {len(named)} images that the "
                                   "results name are not in the PACS")
    print(f"The results name {len(named)} images; the PACS holds each of them.")


def print_report(pacs, results, folder):
    """The structured report as it lies in the PACS, read by DCMTK."""
    reports = [r for r in results if r["SOPClassUID"] in world.SR_CLASSES]
    for report in reports:
        path = os.path.join(folder, "report.dcm")
        with open(path, "wb") as f:
            f.write(pacs.raw(f"/instances/{report['orthanc_id']}/file"))
        print(run("dsrdump", "+Pn", "+Pl", path, check=False).stdout.strip())
        print(f"\nfile: {path}")
    return len(reports)


def print_key_images(pacs, results, folder):
    pictures = [r for r in results if r["SOPClassUID"] == world.SECONDARY_CAPTURE]
    for number, picture in enumerate(sorted(pictures, key=lambda p: p["SOPInstanceUID"]), 1):
        path = os.path.join(folder, f"key-image-{number}.png")
        with open(path, "wb") as f:
            f.write(pacs.raw(f"/instances/{picture['orthanc_id']}/preview", "image/png"))
        print(path)
    return len(pictures)


def demo(folder, again):
    node_port, dicom_port = world.free_port(11112), world.free_port(4242)
    http_port = world.free_port(8042)
    pacs = world.Orthanc(
        os.path.join(folder, "pacs"), dicom_port=dicom_port, http_port=http_port,
        extra={"DicomModalities": {
            "hepar": ["HEPAR", "127.0.0.1", node_port],
            "scanner": ["SCANNER", "127.0.0.1", 104]}})  # nothing is sent to the scanner
    node = world.Node(os.path.join(folder, "node"), peers=[world.peer_of(pacs)], port=node_port,
                      changes={"intake": {"allow": [{"ae_title": pacs.ae,
                                                     "address": "127.0.0.1"}]},
                               "readiness": {"quiet_s": 5, "phases": ["NC", "A", "V", "D"]}})
    try:
        say("a PACS (Orthanc) and hepar start on loopback")
        pacs.start()
        node.start()
        print(f"PACS   dicom 127.0.0.1:{dicom_port}  http://127.0.0.1:{http_port}/  "
              "takes DICOM from AE SCANNER and AE HEPAR at 127.0.0.1 only")
        print(f"hepar  dicom 127.0.0.1:{node_port}  takes DICOM from AE PACS at 127.0.0.1 only, "
              f"config {node.config}")

        say(f"a synthetic patient: four phases of {SLICES} slices and a localizer")
        study, uid = world.phantom(os.path.join(folder, "phantom"), SEED, SLICES, "--class", "hcc")
        files = world.dicom_files(study)
        print(study, uid)
        before = counted(pacs, uid)

        say("the scanner (storescu) sends the study to the PACS")
        scan(pacs, files, uid, again)
        say("the PACS forwards the study to hepar")
        route(pacs, node, len(files), uid, again)

        say(f"heparctl wait {uid}")
        waited = subprocess.run([world.program("heparctl"), "--config", node.config, "wait", uid,
                                 "--timeout", "600"])
        say(f"heparctl show {uid}")
        subprocess.run([world.program("heparctl"), "--config", node.config, "show", uid])
        need(waited.returncode == 0, "the study did not reach the PACS; see " + node.process.log)

        results = results_in(pacs, uid)
        say("the report, fetched from the PACS")
        need(print_report(pacs, results, folder) > 0, "no report in the PACS")
        say("the key images, fetched from the PACS")
        need(print_key_images(pacs, results, folder) > 0, "no key image in the PACS")

        print()
        check_references(pacs, uid, results)
        after = counted(pacs, uid)
        print(f"The PACS held {before[0]} CT images and {before[1]} results of this patient "
              f"before this run\nand holds {after[0]} CT images and {after[1]} results now"
              + ("." if before != after else "; it took each again and kept what it had."
                 if again else "; nothing was sent twice."))
        if before == after and not again:
            print("`./dev demo --again` sends the study again all the same; "
                  "`./dev demo --fresh` forgets everything first.")
        print("Synthetic patient, networks trained on synthetic patients: research use only.")
    finally:
        node.stop()
        pacs.stop()


def main():
    parser = argparse.ArgumentParser(prog="./dev demo", description=__doc__)
    parser.add_argument("--build", default="build", help=argparse.SUPPRESS)
    parser.add_argument("--again", action="store_true", help="send the study again, though known")
    parser.add_argument("--fresh", action="store_true", help="forget the earlier runs first")
    chosen = parser.parse_args()
    world.BUILD = os.path.abspath(chosen.build)
    folder = os.path.join(world.BUILD, "demo")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(world.BUILD, "demo.lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.exit("another demo is running from this tree")
        if chosen.fresh:
            shutil.rmtree(folder)
        try:
            demo(folder, chosen.again)
        except Failure as words:
            sys.exit(f"\ndemo failed: {words}")
        except KeyboardInterrupt:
            sys.exit("\ninterrupted; everything that was started has been stopped")


main()
