"""What an admin sees and does: readiness with its reason, late images, cancel and
retry, modes, a second daemon, a peer that is taken out. The worker is a double;
no PACS is needed."""
import json
import os
import socket
import stat
import sys
import time

import world
from world import double_node, need, small_study


def state_of(node, uid):
    return (node.show(uid) or {}).get("state")


def becomes(node, uid, state, seconds=30):
    world.wait_until(lambda: state_of(node, uid) == state, seconds,
                     f"{state_of(node, uid)} and not {state}")
    return node.show(uid)


def awaited_phases_are_waited_for(folder, use):
    node = use(double_node(folder + "/node", [], readiness={
        "quiet_s": 1, "max_wait_s": 6 * world.SLOW, "phases": ["NC", "A", "V", "D"]}))
    study, uid = small_study(folder + "/phantom")
    node.start(env={"WORKER_DOUBLE_PHASES": "A V"})
    world.storescu(node, study)
    time.sleep(3 * world.SLOW)
    need(state_of(node, uid) == "receiving", "ran before the awaited phases were there")
    shown = node.wait(uid, 60)
    need(shown["state"] == "sent", f"ended as {shown['state']}")
    need("maximum wait" in shown["decision"] and "missing" in shown["decision"],
         f"the reason is {shown['decision']!r}")


def complete_studies_do_not_wait_for_the_maximum(folder, use):
    node = use(double_node(folder + "/node", [], readiness={
        "quiet_s": 1, "max_wait_s": 600, "phases": ["NC", "A", "V", "D"]})).start()
    study, uid = small_study(folder + "/phantom")
    world.storescu(node, study)
    shown = node.wait(uid, 60)
    need(shown["state"] == "sent", f"ended as {shown['state']}")
    need("awaited phases are there" in shown["decision"], shown["decision"])


def late_images_make_a_revision(folder, use):
    node = use(double_node(folder + "/node", [])).start()
    study, uid = small_study(folder + "/phantom")
    files = world.dicom_files(study)
    world.storescu(node, files[:-4])
    first = node.wait(uid, 60)
    need((first["revision"], first["state"]) == (1, "sent"), f"{first['state']}")
    world.storescu(node, files)  # all again: what is new makes revision 2
    world.wait_until(lambda: node.show(uid)["revision"] == 2, 20, "no second revision")
    second = node.wait(uid, 60)
    need(second["state"] == "sent", f"ended as {second['state']}")
    need(second["received"]["duplicates"] == len(files) - 4, "duplicates were not counted")
    need(second["revisions"][1]["images"] > second["revisions"][0]["images"],
         "the revision sees no more images")
    # the double's objects follow from the study alone: found again, not built anew
    need([r["path"] for r in second["results"]] == [r["path"] for r in first["results"]],
         "objects were built twice")


def cancel_ends_a_run_and_retry_begins_it_anew(folder, use):
    node = use(double_node(folder + "/node", []))
    study, uid = small_study(folder + "/phantom")
    node.start(env={"WORKER_DOUBLE": "hang"})
    world.storescu(node, study)
    shown = becomes(node, uid, "running")
    job = str(shown["job"])
    need(node.ctl("wait", uid, "--timeout", "1").returncode == 4, "wait: timed out is 4")
    need(node.ctl("retry", job).returncode == 1, "a running job was retried")
    need(node.ctl("cancel", job).returncode == 0, "cancel was refused")
    need(state_of(node, uid) == "cancelled", "not cancelled")
    need(node.ctl("cancel", job).returncode == 1, "cancelled twice")
    need(node.ctl("wait", uid).returncode == 1, "wait: cancelled is 1")
    outbox = os.path.join(node.settings["state_dir"], "outbox")
    world.wait_until(lambda: not any(n.endswith(".part") for _, d, _ in os.walk(outbox)
                                     for n in d), 10, "the run's folder stays")
    node.stop()
    need(node.ctl("retry", job).returncode == 1, "retry without a daemon")
    node.start()
    need(node.ctl("retry", job).returncode == 0, "retry was refused")
    need(node.wait(uid, 60)["state"] == "sent", "retry did not end well")
    need(node.ctl("retry", "999").returncode == 3, "an unknown job is 3")


def modes_are_private_and_one_daemon_is_enough(folder, use):
    node = use(double_node(folder + "/node", [])).start()
    state = node.settings["state_dir"]
    for name, mode in (("", 0o750), ("spool", 0o700), ("outbox", 0o700), ("quarantine", 0o700),
                       ("hepar.db", 0o640), ("hepar.db-wal", 0o640), ("control.sock", 0o660)):
        got = stat.S_IMODE(os.stat(os.path.join(state, name)).st_mode)
        need(got == mode, f"{name or 'state_dir'} has mode {got:o}")
    second = world.run(world.program("hepard"), "--config", node.config, check=False)
    need(second.returncode == 1 and "another hepard" in second.stdout, second.stdout)
    need(node.listens(), "the first one was disturbed")
    os.chmod(node.config, 0o666)
    third = world.run(world.program("hepard"), "--config", node.config, "--check", check=False)
    need(third.returncode == 1 and "write" in third.stdout, third.stdout)
    os.chmod(node.config, 0o600)


def answers_are_readable_by_machines(folder, use):
    node = use(double_node(folder + "/node", [])).start()
    study, uid = small_study(folder + "/phantom")
    world.storescu(node, study)
    node.wait(uid, 60)
    for stopped in (False, True):
        for words in (["status"], ["studies"], ["jobs"], ["show", uid], ["events"],
                      ["events", uid], ["peers"], ["conformance"], ["wait", uid]):
            done = node.ctl("--json", *words)
            need(done.returncode == 0, f"{words}: {done.stdout}")
            json.loads(done.stdout)
            plain = node.ctl(*words)
            need(plain.returncode == 0 and plain.stdout.strip(), f"{words} says nothing")
        node.stop() if not stopped else None
    for words in (["show", "1.2.3.4"], ["events", "77"], ["wait", "1.2.3.4"], ["echo", "x"]):
        need(node.ctl(*words).returncode == 3, f"{words} is not 3")
    for words in ([], ["shwo"], ["show"], ["wait", uid, "--timeout", "soon"], ["config"]):
        need(node.ctl(*words).returncode == 2, f"{words} is not 2")


def nonsense_on_the_control_socket_disturbs_nobody(folder, use):
    node = use(double_node(folder + "/node", [])).start()
    path = os.path.join(node.settings["state_dir"], "control.sock")
    for nonsense in (b"GET / HTTP/1.0\r\n\r\n", b"\n", b"[]\n", b"{}\n", b'{"do":5}\n',
                     b'{"do":"retry"}\n', b"x" * 100000, b'{"do":"echo","peer":null}\n',
                     b'{"do":"progress"}\n' * 200, b""):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(5)
            s.connect(path)
            try:
                s.sendall(nonsense)
                s.shutdown(socket.SHUT_WR)
                while s.recv(65536):
                    pass
            except OSError:
                pass
    need(node.process.alive, "the daemon died")
    need(node.ctl("status").returncode == 0, "no answer any more")


def a_peer_that_is_taken_out_is_waited_for_no_more(folder, use):
    node = use(double_node(folder + "/node", [
        {"name": "gone", "ae_title": "GONE", "host": "127.0.0.1", "port": world.free_port()}]))
    node.start()
    study, uid = small_study(folder + "/phantom")
    world.storescu(node, study)
    becomes(node, uid, "reported")
    node.stop()
    node.settings["peers"] = []
    node.write_config()
    node.start()
    shown = becomes(node, uid, "sent")
    need(shown["reason_code"] == "no_peer", f"the reason is {shown['reason']!r}")


def line_of(text, word):
    """What stands behind the word at the beginning of a line, and what is below it."""
    lines = text.splitlines()
    at = next((i for i, line in enumerate(lines) if line.startswith(word.ljust(11))), None)
    need(at is not None, f"no line {word!r} in:\n{text}")
    below = lines[at + 1].strip() if at + 1 < len(lines) and lines[at + 1][0] == " " else ""
    return lines[at][11:], below


def status_says_what_reads_and_how_fast(folder, use):
    node = use(double_node(folder + "/node", [], reading={"precision": "bf16"})).start()
    need(line_of(node.ctl("status").stdout, "device")[0].startswith("not known"),
         node.ctl("status").stdout)
    study, uid = small_study(folder + "/phantom")
    world.storescu(node, study)
    node.wait(uid, 60)
    cache = os.path.join(node.settings["state_dir"], "plans", "cuda")
    told = json.loads(node.ctl("--json", "status").stdout)
    need(told["inference"]["plan_cache"] == {"path": cache, "exists": False, "plans": 0},
         f"the plan cache is {told['inference']['plan_cache']}")
    need(told["inference"]["precision"] == "bf16", "the precision did not reach the worker")
    need(told["inference"]["open_ms"] == 312.4, "the load time")
    need(told["last_read"]["job"] == 1 and
         told["last_read"]["networks_ms"] == {"liver": 640.4, "detector": 2900.6} and
         told["last_read"]["timings_ms"] == {"liver": 700, "detect": 3100},
         f"the last times are {told['last_read']}")
    said = node.ctl("status").stdout
    need(line_of(said, "plan cache")[0] == f"{cache}, not there yet", said)
    with open(cache, "w") as f:
        f.write("hepar plans 1\na device\na\t1.0\t2\t\nb\t1.0\t2\t\nc\t1.0\t2\t\n")
    for stopped in (False, True):
        said = node.ctl("status").stdout
        need(line_of(said, "device") == ("cuda: a double, fp16", "auto: a GPU that serves"), said)
        need(line_of(said, "precision")[0] == "bf16", said)
        need(line_of(said, "plan cache")[0] == f"{cache}, 3 plans", said)
        model = line_of(said, "model")[0]
        need(model.startswith("double 7, loaded in 312 ms at 2023-11-1") and
             model.endswith("; networks ready after 1.9 s more"), said)
        networks = line_of(said, "networks")[0]
        need(networks.startswith("3.5 s of ") and
             networks.endswith(" in job 1: liver 640 ms, detector 2.9 s"), said)
        if not stopped:
            node.stop()
    need("in networks: liver 0.6 s, detector 2.9 s" in node.ctl("show", uid).stdout,
         node.ctl("show", uid).stdout)


def a_device_that_cannot_serve_is_refused_at_start(folder, use):
    world.require_bundle()
    node = use(world.Node(folder + "/node"))
    no_cuda = {"HEPAR_CUDA_MODULE": "/nonexistent.so"}  # as on a host without a GPU
    state = node.settings["state_dir"]
    for reading, key, why in (
            ({"device": "cuda", "precision": "auto"}, "device", "cuda: no CUDA module"),
            ({"device": "auto", "precision": "fp16"}, "precision", "fp16: the CPU has fp32"),
            ({"device": "cpu", "precision": "fp16"}, "precision", ": device cpu has fp32")):
        node.settings["reading"].update(reading)
        node.write_config()
        with open(node.config) as f:
            line = next(i for i, text in enumerate(f, 1) if text.strip().startswith(key + ":"))
        for more in ([], ["--check"]):
            done = world.run(world.program("hepard"), "--config", node.config, *more,
                             check=False, env=no_cuda)
            need(done.returncode == 1, f"{reading} is no mistake for hepard {more}")
            need(f"{node.config}:{line}: {key}" in done.stdout and why in done.stdout,
                 f"{reading}: {done.stdout}")
        need(not os.path.exists(state), "a daemon that did not start left something")
    node.settings["reading"].update({"device": "auto", "precision": "auto"})
    node.write_config()
    node.start(env=no_cuda)
    lines = [line for line in node.log().splitlines() if "device=" in line]
    need(len(lines) == 1 and "device=cpu asked=auto precision=fp32" in lines[0] and
         'why="no CUDA module at /nonexistent.so"' in lines[0], f"the log says {lines}")
    said = node.ctl("status").stdout
    need(line_of(said, "device")[0].startswith("cpu: oneDNN"), said)
    need(line_of(said, "device")[1] == "auto: no CUDA module at /nonexistent.so", said)
    need(line_of(said, "precision")[0] == "fp32", said)
    need(line_of(said, "plan cache")[0] == "not used on this device", said)
    need(line_of(said, "model")[0].endswith("networks get ready with the next study"), said)
    need(line_of(said, "networks")[0] == "no study was read yet", said)


if __name__ == "__main__":
    world.require_tools("storescu")
    sys.dont_write_bytecode = True
    world.main(awaited_phases_are_waited_for, complete_studies_do_not_wait_for_the_maximum,
               late_images_make_a_revision, cancel_ends_a_run_and_retry_begins_it_anew,
               modes_are_private_and_one_daemon_is_enough, answers_are_readable_by_machines,
               nonsense_on_the_control_socket_disturbs_nobody,
               a_peer_that_is_taken_out_is_waited_for_no_more,
               status_says_what_reads_and_how_fast,
               a_device_that_cannot_serve_is_refused_at_start)
