#!/usr/bin/python3
"""A worker that reads nothing and is done at once: it speaks hepar-worker's
side of the socketpair, so that tests of ledger and delivery take seconds.

It writes one structured report and one key image whose UIDs follow from the
study, like the real ones. WORKER_DOUBLE may say: die (kill -9 itself, each
time), die-once, slow, slow-look, hang, unsuitable. WORKER_DOUBLE_PHASES: what a look finds."""
import hashlib
import json
import os
import signal
import socket
import sys
import time


def uid(*parts):
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return "2.25." + str(int.from_bytes(digest[:16], "big"))


def write_objects(out, first_slice, study_uid):
    from pydicom import dcmread
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    source = dcmread(first_slice, stop_before_pixels=True)
    made = []
    for kind, sop_class, modality in (("sr", "1.2.840.10008.5.1.4.1.1.88.34", "SR"),
                                      ("key_image", "1.2.840.10008.5.1.4.1.1.7", "OT")):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = sop_class
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = uid(study_uid, kind)
        ds.is_little_endian, ds.is_implicit_VR = True, False
        ds.PatientID, ds.PatientName = source.PatientID, source.PatientName
        ds.StudyInstanceUID, ds.SeriesInstanceUID = study_uid, uid(study_uid, "series", kind)
        ds.Modality, ds.SeriesDescription = modality, "AI, research use only"
        if kind == "key_image":
            ds.Rows = ds.Columns = 16
            ds.SamplesPerPixel, ds.PhotometricInterpretation = 3, "RGB"
            ds.BitsAllocated = ds.BitsStored = 8
            ds.HighBit, ds.PixelRepresentation, ds.PlanarConfiguration = 7, 0, 0
            ds.PixelData = bytes(16 * 16 * 3)
        ds.save_as(os.path.join(out, kind + ".dcm"), write_like_original=False)
        made.append({"kind": kind, "file": kind + ".dcm", "png": "", "sop_class": sop_class,
                     "sop_instance": ds.SOPInstanceUID, "required": True})
    return made


def inference(options):
    """What a worker says of itself, on a GPU that is not there."""
    return {"asked": "auto", "device": "cuda", "what": "cuda: a double, fp16",
            "why": "a GPU that serves", "precision": options["precision"],
            "plan_cache": options["plan_cache"], "bundle": {"name": "double", "version": "7"},
            "opened_ms": 1700000000000, "open_ms": 312.4, "compile_ms": 1900}


def answer(job):
    mode = os.environ.get("WORKER_DOUBLE", "")
    if mode == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "die-once":
        marker = os.environ["WORKER_DOUBLE_MARKER"]
        if not os.path.exists(marker):
            open(marker, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
    if mode == "device-error-once":  # as hepar-worker: told, and then it ends
        marker = os.environ["WORKER_DOUBLE_MARKER"]
        if not os.path.exists(marker):
            open(marker, "w").close()
            return {"event": "done", "job": job["job"], "run": job["run"],
                    "input_digest": "0" * 64, "outcome": "failed", "reason_code": "E_DEVICE",
                    "reason": "liver: CUDA: an illegal memory access", "objects": [],
                    "may_retry": True}
    if mode == "slow":
        time.sleep(5)
    if mode == "hang":
        time.sleep(3600)
    done = {"event": "done", "job": job["job"], "run": job["run"], "input_digest": "0" * 64,
            "inference": inference(job["options"])}
    if mode == "unsuitable":
        return {**done, "outcome": "unsuitable", "reason_code": "no_venous_phase",
                "reason": "no venous phase", "objects": [],
                "result": {"study_uid": job["study_uid"], "outcome": "unsuitable"}}
    objects = write_objects(job["out"], job["files"][0], job["study_uid"])
    result = {"study_uid": job["study_uid"], "outcome": "classified", "candidates": [],
              "timings_ms": {"liver": 700, "detect": 3100},
              "networks_ms": {"liver": 640.4, "detector": 2900.6}, "results": objects}
    with open(os.path.join(job["out"], "result.json"), "w") as f:
        json.dump(result, f)
    return {**done, "outcome": "classified", "reason_code": "", "reason": "", "result": result,
            "objects": objects}


def main():
    if "--check" in sys.argv:  # any bundle will do
        return
    line = socket.socket(fileno=3).makefile("rw", buffering=1)
    for text in line:
        job = json.loads(text)
        if job.get("do") == "run":
            line.write(json.dumps({"event": "progress", "job": job["job"], "run": job["run"],
                                   "stage": "double", "fraction": 0.5}) + "\n")
            said = answer(job)
            line.write(json.dumps(said) + "\n")
            if said.get("reason_code") == "E_DEVICE":
                line.flush()
                time.sleep(1)  # letting go of a device takes its time
                return
        elif job.get("do") == "look":
            if os.environ.get("WORKER_DOUBLE", "") == "slow-look":
                time.sleep(5)
            line.write(json.dumps({"event": "looked", "job": job["job"], "look": job["look"],
                                   "phases": os.environ.get("WORKER_DOUBLE_PHASES",
                                                            "NC A V D").split(),
                                   "code": "OK"}) + "\n")
        line.flush()


main()
