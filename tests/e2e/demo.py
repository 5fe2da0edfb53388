"""./dev demo: a synthetic four-phase liver study travels through the real system.

A phantom patient is sent by stock storescu to hepard; hepard reads it and
stores a structured report and key images in a real PACS (Debian's Orthanc),
from which this program fetches what it prints. Everything listens on loopback.
The state stays in build/demo, so a second run finds the study already there.
"""
import argparse
import fcntl
import os
import shutil
import subprocess
import sys

import world
from world import Failure, need, run

SEED, SLICES = 7, 60
BOLD, PLAIN = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")


def say(words):
    print(f"\n{BOLD}== {words}{PLAIN}", flush=True)


def send_study(node, folder, uid, again):
    files = world.dicom_files(folder)
    known = node.show(uid)
    # An earlier run that was interrupted left a part; what is known is harmless to send.
    if known and known["received"]["stored"] >= len(files) and not again:
        print("hepar already holds this study (same patient, same UIDs, state kept in\n"
              "build/demo), so it is not sent a second time. `./dev demo --again` sends it\n"
              "again all the same; `./dev demo --fresh` forgets everything first.")
        return
    world.storescu(node, files, "-R", calling="SCANNER")
    print(f"{len(files)} slices accepted, each durable before its Success.")


def results_in(pacs):
    return {"instances": pacs.get("/statistics")["CountInstances"]}


def print_report(pacs, folder):
    """The structured report as it lies in the PACS, read by DCMTK."""
    reports = [i for i in pacs.instances() if i.get("SOPClassUID") in world.SR_CLASSES]
    for report in reports:
        path = os.path.join(folder, "report.dcm")
        with open(path, "wb") as f:
            f.write(pacs.raw(f"/instances/{report['orthanc_id']}/file"))
        print(run("dsrdump", "+Pn", "+Pl", path, check=False).stdout.strip())
        print(f"\nfile: {path}")
    return len(reports)


def print_key_images(pacs, folder):
    pictures = pacs.of_class(world.SECONDARY_CAPTURE)
    for number, picture in enumerate(sorted(pictures, key=lambda p: p["SOPInstanceUID"]), 1):
        path = os.path.join(folder, f"key-image-{number}.png")
        with open(path, "wb") as f:
            f.write(pacs.raw(f"/instances/{picture['orthanc_id']}/preview", "image/png"))
        print(path)
    return len(pictures)


def demo(folder, again):
    node_port, dicom_port = world.free_port(11112), world.free_port(4242)
    http_port = world.free_port(8042)
    pacs = world.Orthanc(os.path.join(folder, "pacs"), dicom_port=dicom_port, http_port=http_port)
    node = world.Node(os.path.join(folder, "node"), peers=[world.peer_of(pacs)], port=node_port,
                      changes={"readiness": {"quiet_s": 5, "phases": ["NC", "A", "V", "D"]}})
    try:
        say("a PACS (Orthanc) and hepar start on loopback")
        pacs.start()
        node.start()
        print(f"PACS   dicom 127.0.0.1:{dicom_port}  http://127.0.0.1:{http_port}/  "
              "takes DICOM from AE HEPAR at 127.0.0.1 only")
        print(f"hepar  dicom 127.0.0.1:{node_port}  config {node.config}")

        say(f"a synthetic patient: four phases of {SLICES} slices")
        study, uid = world.phantom(os.path.join(folder, "phantom"), SEED, SLICES, "--class", "hcc")
        print(study, uid)
        before = results_in(pacs)

        say("storescu sends the study, as a scanner would")
        send_study(node, study, uid, again)

        say(f"heparctl wait {uid}")
        waited = subprocess.run([world.program("heparctl"), "--config", node.config, "wait", uid,
                                 "--timeout", "600"])
        say(f"heparctl show {uid}")
        subprocess.run([world.program("heparctl"), "--config", node.config, "show", uid])
        need(waited.returncode == 0, "the study did not reach the PACS; see " + node.process.log)

        say("the report, fetched from the PACS")
        need(print_report(pacs, folder) > 0, "no report in the PACS")
        say("the key images, fetched from the PACS")
        need(print_key_images(pacs, folder) > 0, "no key image in the PACS")

        after = results_in(pacs)
        print(f"\nThe PACS held {before['instances']} objects before this run and holds "
              f"{after['instances']} now"
              + ("; nothing was sent twice." if before == after else "."))
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
