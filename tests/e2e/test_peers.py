"""Delivery with several peers: the dead, the silent and the refusing delay
nobody else, and are served when they come back."""
import socket
import threading

import world
from world import double_node, need, small_study


class SilentPeer:
    """Accepts connections and never says a word."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.dicom_port, self.ae = self.listener.getsockname()[1], "SILENT"
        self.held, self.stopped = [], False
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                self.held.append(self.listener.accept()[0])
            except OSError:
                return

    def stop(self):
        self.listener.close()
        for s in self.held:
            s.close()


def a_dead_and_a_silent_peer_delay_nobody(folder, use):
    alive = use(world.Orthanc(folder + "/alive")).start()
    dead = use(world.Orthanc(folder + "/dead"))  # configured, not started
    silent = use(SilentPeer())
    node = use(double_node(folder + "/node", [
        world.peer_of(dead, "dead", timeout_s=2), world.peer_of(silent, "silent", timeout_s=3),
        world.peer_of(alive, "alive")])).start()
    study, uid = small_study(folder + "/phantom")
    world.storescu(node, study)
    world.wait_until(lambda: len(alive.instances()) == 2, 30, "the living PACS waits for the dead")
    need(node.show(uid)["state"] == "reported", "sent, although two peers got nothing")
    dead.start()
    world.wait_until(lambda: len(dead.instances()) == 2, 60, "the peer that came back got nothing")
    need(len(alive.instances()) == 2, "the living one got something twice")
    need(node.ctl("echo", "alive").returncode == 0, "heparctl echo of a living peer")
    need(node.ctl("echo", "silent").returncode != 0, "heparctl echo of a silent peer")
    need(node.ctl("peers").returncode == 0, "heparctl peers")


def a_peer_that_refuses_for_good_stops_the_job(folder, use):
    # This PACS knows another AE title only: every association is rejected. That
    # is a configuration fault which an admin mends, so the job must wait, not die.
    pacs = use(world.Orthanc(folder + "/pacs", from_ae="SOMEBODY")).start()
    node = use(double_node(folder + "/node", [world.peer_of(pacs)])).start()
    study, uid = small_study(folder + "/phantom")
    world.storescu(node, study)
    world.wait_until(lambda: (node.show(uid) or {}).get("state") in ("reported", "failed"), 30,
                     "no report was made")
    need(not pacs.instances(), "the PACS took what it refuses")


if __name__ == "__main__":
    world.require_tools("storescu", "Orthanc")
    world.main(a_dead_and_a_silent_peer_delay_nobody, a_peer_that_refuses_for_good_stops_the_job)
