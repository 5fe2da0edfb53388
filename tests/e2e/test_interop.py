"""Every sender at hand delivers the same study: storescu (also with many
contexts, small PDUs, lossless syntaxes), dcmsend, gdcmscu, Orthanc. What lies
in the spool is bit by bit what was sent."""
import os
import subprocess

import world
from world import double_node, need, run, small_study


def spool_by_uid(node):
    """{SOP Instance UID: dataset bytes} of what the node keeps."""
    import pydicom
    found = {}
    for path in world.dicom_files(os.path.join(node.settings["state_dir"], "spool")):
        found[pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID] = dataset_of(path)
    return found


def dataset_of(path):
    """The bytes after the file meta information."""
    import pydicom
    with open(path, "rb") as f:
        pydicom.filereader.read_preamble(f, False)
        pydicom.filereader._read_file_meta_info(f)
        return f.read()


def by_storescu(node, files, _use, _folder):
    world.storescu(node, files)


def by_storescu_small_pdus(node, files, _use, _folder):
    world.storescu(node, files, "-pdu", "4096")


def by_storescu_four_at_once(node, files, _use, folder):
    senders = [world.Process(["storescu", "-aet", "S", "-aec", node.ae, "127.0.0.1", str(node.port),
                              *files[i::4]], f"{folder}/s{i}.log") for i in range(4)]
    for sender in senders:
        need(sender.child.wait(60 * world.SLOW) == 0, sender.output())


def by_dcmsend(node, files, _use, _folder):
    run("dcmsend", "-aet", "SCANNER", "-aec", node.ae, "127.0.0.1", str(node.port), *files)


def by_gdcmscu(node, files, _use, _folder):
    # Debian's gdcmscu throws after every release, at storescp too; what counts is what arrived.
    subprocess.run(["gdcmscu", "--store", "--aetitle", "SCANNER", "--call", node.ae, "127.0.0.1",
                    str(node.port), *files], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                   timeout=120)


def by_orthanc(node, files, use, folder):
    pacs = use(world.Orthanc(folder + "/sender", extra={
        "DicomAet": "SCANNER",
        "DicomModalities": {"hepar": {"AET": node.ae, "Host": "127.0.0.1", "Port": node.port,
                                      "AllowTranscoding": False}}})).start()
    ids = []
    for path in files:
        with open(path, "rb") as f:
            ids.append(pacs.post("/instances", f.read())["ID"])
    pacs.forward("hepar", ids)


SENDERS = [by_storescu, by_storescu_small_pdus, by_storescu_four_at_once, by_dcmsend, by_gdcmscu,
           by_orthanc]


def every_sender_delivers_bit_by_bit(folder, use):
    study, uid = small_study(folder + "/phantom")
    files = world.dicom_files(study)
    sent = {}
    for path in files:
        import pydicom
        sent[pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID] = dataset_of(path)
    for number, sender in enumerate(SENDERS):
        node = use(double_node(f"{folder}/node{number}", [])).start()
        sender(node, files, use, f"{folder}/node{number}")
        kept = spool_by_uid(node)
        need(kept.keys() == sent.keys(), f"{sender.__name__}: {len(kept)} of {len(sent)} arrived")
        # gdcmscu and Orthanc encode anew (group lengths, Implicit VR), so their bytes are theirs.
        if sender not in (by_gdcmscu, by_orthanc):
            differ = [u for u in sent if kept[u] != sent[u]]
            need(not differ, f"{sender.__name__}: {len(differ)} datasets differ from what was sent")
        shown = node.wait(uid, 60)
        need(shown["state"] in ("sent", "reported"), f"{sender.__name__}: {shown['state']}")
        node.stop()
        print(f"  {sender.__name__}: {len(kept)} slices", flush=True)


def every_transfer_syntax_is_taken(folder, use):
    study, _ = small_study(folder + "/phantom")
    original = world.dicom_files(study)[0]
    node = use(double_node(folder + "/node", [])).start()
    cases = [("dcmcjpeg", ["+e1"], "-xs"), ("dcmcjpls", ["+el"], "-xt"), ("dcmcrle", [], "-xr"),
             ("dcmconv", ["+te"], "-xe"), ("dcmconv", ["+tb"], "-xb"), ("dcmconv", ["+ti"], "-xi")]
    for number, (tool, options, proposal) in enumerate(cases):
        path = f"{folder}/{number}.dcm"
        run(tool, *options, original, path)
        run("dcmodify", "-nb", "-gin", path)  # each its own SOP Instance UID
        world.storescu(node, [path], proposal)
    need(len(spool_by_uid(node)) == len(cases), "a transfer syntax was lost")


def a_message_with_128_contexts(folder, use):
    """storescu's own list of classes fills the association to its limit."""
    study, _ = small_study(folder + "/phantom")
    node = use(double_node(folder + "/node", [])).start()
    # Without -R storescu proposes everything it knows, as scanners' test tools do.
    world.storescu(node, world.dicom_files(study)[:1])
    need(len(spool_by_uid(node)) == 1, "the slice did not arrive")
    run("echoscu", "-pts", "30", "-ppc", "128", "-aec", node.ae, "127.0.0.1", str(node.port))


if __name__ == "__main__":
    world.require_tools("storescu", "dcmsend", "gdcmscu", "Orthanc", "dcmcjpls", "dcmodify")
    world.main(a_message_with_128_contexts, every_transfer_syntax_is_taken,
               every_sender_delivers_bit_by_bit)
