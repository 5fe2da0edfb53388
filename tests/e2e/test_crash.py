"""kill -9 at the named points and at random moments; after a restart the same
report arrives, once.

The points come from the sources themselves (hp_crash_point), so a new one is
tested by existing. The worker is a double: what is tested here is the ledger,
the spool and delivery, not the networks."""
import os
import random
import re
import sys
import time

import world
from world import Failure, double_node, need, small_study

def crash_points():
    found = set()
    for room in ("daemon", "db", "dicom"):
        for name in os.listdir(os.path.join(world.ROOT, room)):
            if name.endswith((".c", ".cc")):
                with open(os.path.join(world.ROOT, room, name)) as f:
                    found |= set(re.findall(r'hp_crash_point\("([^"]+)"\)', f.read()))
    return sorted(p for p in found if not p.startswith("worker."))  # not in the double


def settle(node, study, uid, pacs):
    """Sends until every slice has its Success, waits, and counts what arrived."""
    world.storescu(node, study)
    shown = node.wait(uid, 60)
    need(shown["state"] == "sent", f"ended as {shown['state']}: {shown.get('reason')}")
    stored = pacs.instances()
    uids = [i["SOPInstanceUID"] for i in stored]
    need(len(uids) == len(set(uids)), "an object twice")
    kinds = sorted(i["SOPClassUID"] for i in stored if i["StudyInstanceUID"] == uid)
    need(kinds == ["1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.88.34"],
         f"the PACS holds {kinds}")
    return uids


def settled(node, uid):
    """Has its job come to an end? (One that dies at every pass never will.)"""
    return (node.show(uid) or {}).get("state") in ("sent", "failed", "unsuitable")


def spool_is_tidy(node):
    state = node.settings["state_dir"]
    for folder, _, names in os.walk(state):
        parts = [n for n in names if n.endswith(".part")]
        need(not parts, f"{folder}: left over {parts}")
    stored = world.json.loads(node.ctl("--json", "status").stdout)["received"]["stored"]
    held = len(world.spooled(node))
    need(held == stored, f"{held} files in the spool, {stored} in the ledger")


def dies_at_each_point(folder, use):
    points = crash_points()
    need(points, "no hp_crash_point in the sources")
    study, uid = small_study(folder + "/phantom")
    for number, point in enumerate(points):
        pacs = use(world.Orthanc(f"{folder}/pacs{number}")).start()
        node = use(double_node(f"{folder}/node{number}", [world.peer_of(pacs)]))
        node.start(env={"HEPAR_CRASH_AT": point}, wait=False)
        try:
            world.wait_until(node.listens, 60, "hepard does not listen")
            world.storescu(node, study, check=False)
            world.wait_until(lambda: not node.process.alive or settled(node, uid), 60,
                             f"{point}: neither dead nor done")
        except Failure:
            need(not node.process.alive, f"{point}: stuck")  # else: dead before it listened
        died = not node.process.alive  # a point of a child kills the child: the job goes on
        node.kill9()
        node.start()
        settle(node, study, uid, pacs)
        spool_is_tidy(node)
        node.stop()
        pacs.stop()
        print(f"  {point}: {'died there' if died else 'not passed'}, one report arrived",
              flush=True)


def dies_at_random_moments(folder, use):
    rounds = int(os.environ.get("HEPAR_CRASH_ROUNDS", "6"))
    seed = int(os.environ.get("HEPAR_CRASH_SEED", "1"))
    dice = random.Random(seed)
    pacs = use(world.Orthanc(folder + "/pacs")).start()
    node = use(double_node(folder + "/node", [world.peer_of(pacs)]))
    study, uid = small_study(folder + "/phantom")
    for number in range(rounds):
        node.start()
        sender = world.Process(
            ["storescu", "-aet", "SCANNER", "-aec", node.ae, "127.0.0.1", str(node.port),
             *world.dicom_files(study)], f"{folder}/storescu{number}.log")
        time.sleep(dice.uniform(0, 3.5))
        node.kill9()
        sender.stop()
    node.start()
    settle(node, study, uid, pacs)
    spool_is_tidy(node)


def worker_dies_once_then_reports(folder, use):
    pacs = use(world.Orthanc(folder + "/pacs")).start()
    node = use(double_node(folder + "/node", [world.peer_of(pacs)]))
    study, uid = small_study(folder + "/phantom")
    node.start(env={"WORKER_DOUBLE": "die-once", "WORKER_DOUBLE_MARKER": folder + "/died"})
    settle(node, study, uid, pacs)
    need(os.path.exists(folder + "/died"), "the worker never died")


def worker_ends_after_a_device_error_and_another_reports(folder, use):
    pacs = use(world.Orthanc(folder + "/pacs")).start()
    node = use(double_node(folder + "/node", [world.peer_of(pacs)]))
    study, uid = small_study(folder + "/phantom")
    node.start(env={"WORKER_DOUBLE": "device-error-once", "WORKER_DOUBLE_MARKER": folder + "/lost"})
    settle(node, study, uid, pacs)
    need(os.path.exists(folder + "/lost"), "the device never failed")
    need(node.process.alive, "the daemon went too")
    need("E_DEVICE" in node.ctl("events", uid).stdout, node.ctl("events", uid).stdout)


def worker_dies_twice_then_the_job_is_set_aside(folder, use):
    pacs = use(world.Orthanc(folder + "/pacs")).start()
    node = use(double_node(folder + "/node", [world.peer_of(pacs)]))
    study, uid = small_study(folder + "/phantom")
    node.start(env={"WORKER_DOUBLE": "die"})
    world.storescu(node, study)
    shown = node.wait(uid, 60)
    need(shown["state"] == "failed", f"ended as {shown['state']}")
    need(node.ctl("wait", uid, "--timeout", "5").returncode == 1, "wait: failed is exit code 1")
    need(not pacs.instances(), "a failed job sent something")
    # Mended (here: another worker), the admin says retry.
    node.stop()
    node.start()
    need(node.ctl("retry", uid).returncode == 0, "retry was refused")
    settle(node, study, uid, pacs)


def worker_that_hangs_is_killed_in_time(folder, use):
    pacs = use(world.Orthanc(folder + "/pacs")).start()
    node = use(double_node(folder + "/node", [world.peer_of(pacs)],
                            reading={"job_timeout_s": 2}))
    study, uid = small_study(folder + "/phantom")
    node.start(env={"WORKER_DOUBLE": "hang"})
    world.storescu(node, study)
    shown = node.wait(uid, 60)
    need(shown["state"] == "failed", f"ended as {shown['state']}")


if __name__ == "__main__":
    world.require_tools("storescu", "Orthanc")
    sys.dont_write_bytecode = True
    world.main(worker_dies_once_then_reports,
               worker_ends_after_a_device_error_and_another_reports,
               worker_dies_twice_then_the_job_is_set_aside,
               worker_that_hangs_is_killed_in_time, dies_at_random_moments, dies_at_each_point)
