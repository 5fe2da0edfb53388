"""A real study, where the machine has it: three phases, none delayed, headers
that do not say the phase. Without a site rule it must end with a reason; with
one it must be read and reported.

HEPAR_TEST_DATA points at the folder that holds liver/; default ../shared/data."""
import glob
import os
import tarfile

import world
from world import need

DATA = os.environ.get("HEPAR_TEST_DATA", os.path.join(world.ROOT, "..", "shared", "data"))


def archive():
    found = sorted(glob.glob(os.path.join(DATA, "liver", "HCC_009*.tar.xz")))
    if not found:
        world.skip(f"no real study below {DATA}")
    return found[0]


def unpacked(folder):
    with tarfile.open(archive()) as tar:
        tar.extractall(folder, filter="data") if hasattr(tarfile, "data_filter") \
            else tar.extractall(folder)
    return folder


def study_uid_of(folder):
    import pydicom
    return pydicom.dcmread(world.dicom_files(folder)[0], stop_before_pixels=True).StudyInstanceUID


# Read from the images (aorta and liver HU); the numbers are not in phase order.
RULES = [{"phase": "NC", "series_number": 2}, {"phase": "A", "series_number": 4},
         {"phase": "V", "series_number": 103}]


def ends_with_a_right_reason_and_runs_with_a_rule(folder, use):
    world.require_bundle()
    study = unpacked(folder + "/study")
    uid = study_uid_of(study)
    pacs = use(world.Orthanc(folder + "/pacs")).start()
    node = use(world.Node(folder + "/node", [world.peer_of(pacs)])).start()
    world.storescu(node, study, "-R")
    shown = node.wait(uid)
    print("  without a rule:", shown["state"], "-", shown["reason"])
    need(shown["state"] in ("unsuitable", "sent"), f"ended as {shown['state']}")
    need(shown["state"] == "sent" or shown["reason"], "unsuitable without a reason")
    need(node.process.alive, "the daemon died")
    if shown["state"] == "sent":
        return
    node.stop()
    node.settings["reading"]["phase_rules"] = RULES
    node.write_config()
    node.start()
    need(node.ctl("retry", uid).returncode == 0, "retry was refused")
    shown = node.wait(uid)
    print("  with a rule:", shown["state"], "-", shown.get("outcome"), shown["reason"])
    need(shown["state"] == "sent", f"ended as {shown['state']}: {shown['reason']}")
    reports = [i for i in pacs.instances() if i["SOPClassUID"] in world.SR_CLASSES]
    need(len(reports) == 1, f"{len(reports)} reports")
    need(pacs.of_class(world.SECONDARY_CAPTURE), "no key image")


if __name__ == "__main__":
    world.require_tools("storescu", "Orthanc")
    archive()
    world.main(ends_with_a_right_reason_and_runs_with_a_rule)
