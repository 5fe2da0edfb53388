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


def series_of(folder):
    """{series UID: (number, description, slices, first acquisition time)} in time order."""
    import pydicom
    found = {}
    for path in world.dicom_files(folder):
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        study, key = ds.StudyInstanceUID, ds.SeriesInstanceUID
        one = found.setdefault(key, [int(ds.SeriesNumber), str(ds.get("SeriesDescription", "")), 0,
                                     str(ds.get("AcquisitionTime", ""))])
        one[2] += 1
    return study, found


def ends_with_a_right_reason_and_runs_with_a_rule(folder, use):
    study, uid = unpacked(folder + "/study"), None
    uid, series = series_of(study)
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
    # The site says which series is which phase: by time, the paper's order.
    big = sorted((s for s in series.values() if s[2] >= 20), key=lambda s: (s[3], s[0]))
    rules = [{"phase": phase, "series_number": s[0]} for phase, s in zip(["NC", "A", "V"], big)]
    node.stop()
    node.settings["reading"]["phase_rules"] = rules
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
