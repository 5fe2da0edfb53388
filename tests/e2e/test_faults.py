"""The n-th sync or write of the daemon fails: what was answered with Success is
there after a restart, and nothing else is. strace makes the call fail, so this
is the whole daemon, SQLite included."""
import os
import signal
import subprocess
import sys
import time

import world
from world import double_node, need, small_study


def daemon_pid(tracer):
    """hepard is strace's only child."""
    with open(f"/proc/{tracer}/task/{tracer}/children") as f:
        children = f.read().split()
    return int(children[0]) if children else 0


def start_with_fault(node, call, error, number):
    """True when it listens; a fault during start must end it with an error."""
    node.process = world.Process(
        ["strace", "-f", "-o", "/dev/null", "-e", f"trace={call}",
         "-e", f"inject={call}:error={error}:when={number}",
         world.program("hepard"), "--config", node.config],
        os.path.join(node.folder, "hepard.log"))
    try:
        world.wait_until(lambda: not node.process.alive or node.listens(), 60, "no sign of life")
    except world.Failure:
        need(not node.process.alive, "neither listening nor ended")
    return node.process.alive


def stop_traced(node):
    pid = daemon_pid(node.process.child.pid)
    if pid:
        os.kill(pid, signal.SIGTERM)
    node.process.child.wait(30 * world.SLOW)


def acknowledged(node, files):
    """SOP Instance UIDs that got a Success, each sent by itself."""
    count = 0
    for file in files:
        count += world.storescu(node, [file], check=False).returncode == 0
    return count


def one_fault(folder, use, study, call, error, number):
    node = use(double_node(f"{folder}/{call}{number}", [], readiness={"quiet_s": 60}))
    node.start()  # the ledger is made in peace
    need(node.stop() == 0, "no clean end")
    acked = 0
    if start_with_fault(node, call, error, number):
        acked = acknowledged(node, world.dicom_files(study)[:8])
        stop_traced(node)
    node.start()
    received = world.json.loads(node.ctl("--json", "status").stdout)["received"]
    spool = world.spooled(node)
    need(received["stored"] == acked, f"{acked} acknowledged, {received['stored']} in the ledger")
    need(len(spool) == acked, f"{acked} acknowledged, {len(spool)} files")
    need("lost=0" in node.log() or "lost=" not in node.log(), "a row without a file")
    node.stop()
    return acked


def every_failing_call_is_told(folder, use):
    study, _ = small_study(folder + "/phantom")
    for call, error, numbers in (("fdatasync", "EIO", (1, 2, 3, 6, 9)),
                                 ("fsync", "EIO", (1, 2, 5)),
                                 ("pwrite64", "ENOSPC", (1, 4, 9, 14, 22, 35))):
        for number in numbers:
            acked = one_fault(folder, use, study, call, error, number)
            print(f"  {call} {number} {error}: {acked} of 8 acknowledged, all of them there",
                  flush=True)


def full_disk_until(node, words):
    tracer = subprocess.Popen(
        ["strace", "-f", "-o", "/dev/null", "-p", str(node.process.child.pid), "-e",
         "trace=pwrite64", "-e", "inject=pwrite64:error=ENOSPC"], stderr=subprocess.DEVNULL)
    try:
        world.wait_until(lambda: words in node.log(), 60, f"no \"{words}\" in the log")
    finally:
        tracer.terminate()
        tracer.wait()


def a_run_that_ends_while_the_disk_is_full_is_told_later(folder, use):
    """Not at the next start: when there is room again."""
    study, uid = small_study(folder + "/phantom")
    node = use(double_node(folder + "/node", []))
    node.start(env={"WORKER_DOUBLE": "slow"})
    world.storescu(node, study)
    world.wait_until(lambda: (node.show(uid) or {}).get("state") == "running", 60, "not running")
    full_disk_until(node, "not recorded")
    shown = node.wait(uid, 90)
    need(shown["state"] == "sent", f"ended as {shown['state']}: {shown['reason']}")


def a_look_that_ends_while_the_disk_is_full_is_told_later(folder, use):
    """Not after the longest wait: when there is room again."""
    study, uid = small_study(folder + "/phantom")
    node = use(double_node(folder + "/node", [],
                           readiness={"phases": ["V"], "max_wait_s": 3000}))
    node.start(env={"WORKER_DOUBLE": "slow-look"})
    world.storescu(node, study)
    time.sleep(3)  # the look is asked for after the quiet second, and takes five
    full_disk_until(node, "look not recorded")
    shown = node.wait(uid, 90)
    need(shown["state"] == "sent", f"ended as {shown['state']}: {shown['reason']}")


if __name__ == "__main__":
    world.require_tools("storescu", "strace")
    probe = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True)
    if probe.returncode != 0:
        world.skip("strace may not trace here")
    sys.dont_write_bytecode = True
    world.main(a_run_that_ends_while_the_disk_is_full_is_told_later,
               a_look_that_ends_while_the_disk_is_full_is_told_later,
               every_failing_call_is_told)
