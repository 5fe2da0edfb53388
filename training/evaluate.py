"""Held-out figures: what hepar-prepare --evaluate wrote, and the ablations.

test-108 goes through the whole C pipeline (liver, detector, KSF, four classes) and
is read from its JSON files; test-400 uses the truth's boxes, for paired comparisons.
Everything lands in metrics.json beside bundle.yaml and, readable, in
docs/bundle-small.md. Interval: 95 % bootstrap over patients, 2000 draws.
"""
import glob
import json
import math
import os

import numpy as np
import torch

from . import bundle, steps
from .nets import build

CLASSES = ["HCC", "ICC", "benign", "metastasis"]
BOOT = 2000
HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def iou(a, b):
    a, b = np.asarray(a, float), np.asarray(b, float)
    side = np.minimum(a[3:], b[3:]) - np.maximum(a[:3], b[:3])
    inter = float(np.prod(np.clip(side, 0, None)))
    volume = float(np.prod(a[3:] - a[:3]) + np.prod(b[3:] - b[:3]))
    return inter / max(volume - inter, 1e-9)


def f1_each(truth, found, n=4):
    """One-vs-all F1; a class without any prediction scores 0."""
    out = []
    for c in range(n):
        tp = np.sum((truth == c) & (found == c))
        denominator = np.sum(truth == c) + np.sum(found == c)
        out.append(2 * tp / denominator if tp else 0.)
    return np.array(out)


def bootstrap(figure, n, seed=1):
    rng = np.random.default_rng(seed)
    values = np.array([figure(rng.integers(0, n, n)) for _ in range(BOOT)])
    return [round(float(v), 4) for v in np.percentile(values, [2.5, 97.5])]


def share(hits):
    hits = np.asarray(hits, float)
    if not len(hits):
        return None
    return {"value": round(float(hits.mean()), 4), "n": len(hits),
            "ci95": bootstrap(lambda i: hits[i].mean(), len(hits))}


def classes(truth, found):
    truth, found = np.asarray(truth), np.asarray(found)
    if not len(truth):
        return None
    n = len(truth)
    each = f1_each(truth, found)
    table = np.zeros((4, 5), int)
    for t, f in zip(truth, found):
        table[t, f if f >= 0 else 4] += 1
    return {"n": n, "accuracy": round(float((truth == found).mean()), 4),
            "accuracy_ci95": bootstrap(lambda i: (truth[i] == found[i]).mean(), n),
            "mean_f1": round(float(each.mean()), 4),
            "mean_f1_ci95": bootstrap(lambda i: f1_each(truth[i], found[i]).mean(), n),
            "f1": {c: round(float(v), 4) for c, v in zip(CLASSES, each)},
            "confusion_rows_truth_last_column_none": table.tolist()}


def mcnemar(a, b):
    """Exact two-sided p of two paired lists of hits, and the discordant counts."""
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    n, k = only_a + only_b, min(only_a, only_b)
    p = min(1., 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2 ** n) if n else 1.
    return {"only_first": only_a, "only_second": only_b, "p": round(p, 5)}


def flat(box):
    if isinstance(box, dict):
        return list(box["lo"]) + list(box["hi"])
    if len(box) == 2:
        return list(box[0]) + list(box[1])
    return list(box)


def read_json(folder):
    docs = []
    for path in sorted(glob.glob(os.path.join(folder, "**", "*.json"), recursive=True)):
        with open(path, encoding="utf-8") as f:
            docs.append(json.load(f))
    return docs


def majority(folds):
    """Winner of the folds' votes, ties by mean probability."""
    p = np.asarray(folds, float)
    if (p < 0).any() or abs(p[0].sum() - 1) > 1e-3:
        p = np.exp(p - p.max(1, keepdims=True))
        p = p / p.sum(1, keepdims=True)
    votes = np.bincount(p.argmax(1), minlength=p.shape[1])
    best = votes == votes.max()
    return int(np.argmax(np.where(best, p.mean(0), -1)))


def whole_pipeline(docs):
    """Figures of test-108 from the findings of the C pipeline."""
    dice, hits = [], {k: [] for k in ("p1td_1", "p1td_10", "p1td_1_iou.3", "p1td_10_iou.3",
                                      "centre_1", "top1_after_ksf")}
    ksf_truth, ksf_found, truth, found, ms = [], [], [], [], []
    for d in docs:
        f, t = d["findings"], d["truth"]
        primaries = [flat(x["box_mm"]) for x in t["lesions"] if x["primary"]]
        cands = [c for c in f.get("candidates", [])]
        best = [max(iou(flat(c["box_mm"]), p) for p in primaries) for c in cands]
        hits["p1td_1"].append(bool(best) and best[0] >= .1)
        hits["p1td_10"].append(any(b >= .1 for b in best))
        hits["p1td_1_iou.3"].append(bool(best) and best[0] >= .3)
        hits["p1td_10_iou.3"].append(any(b >= .3 for b in best))
        inside = False
        if cands:
            box = np.array(flat(cands[0]["box_mm"]))
            c = (box[:3] + box[3:]) / 2
            inside = any(np.all(c >= p[:3]) and np.all(c <= p[3:]) for p in map(np.array, primaries))
        hits["centre_1"].append(bool(inside))
        chosen = (f.get("primary") or {}).get("index", -1)
        hits["top1_after_ksf"].append(chosen >= 0 and best[chosen] >= .1)
        for c, b in zip(cands, best):
            p = c.get("p_primary")
            if p is not None and p >= 0 and (b >= .3 or b < .1):
                ksf_truth.append(int(b >= .3))
                ksf_found.append(int(p >= .5))
        truth.append(t["class"])
        found.append(majority(d["folds"]) if d.get("folds") else -1)
        if d.get("liver_dice"):
            dice.append([np.nan if v is None else v for v in d["liver_dice"]])
        ms.append(sum((f.get("timings_ms") or {}).values()))
    out = {"n": len(docs), **{k: share(v) for k, v in hits.items()}}
    if ksf_truth:
        a, b = np.array(ksf_truth), np.array(ksf_found)
        out["ksf"] = {"rows": len(a), "accuracy": round(float((a == b).mean()), 4),
                      "f1_primary": round(float(f1_each(1 - a, 1 - b, 1)[0]), 4),
                      "gain_top1": round(out["top1_after_ksf"]["value"] - out["p1td_1"]["value"], 4)}
    if dice:
        dice = np.array(dice, float)
        out["liver_dice"] = {p: {"mean": round(float(np.nanmean(dice[:, i])), 4),
                                 "min": round(float(np.nanmin(dice[:, i])), 4)}
                             for i, p in enumerate(bundle.PHASES)}
    out["four_classes"] = classes(truth, found)
    out["pipeline_ms_mean"] = round(float(np.mean(ms))) if ms else None
    return out


def truth_boxes_c(docs):
    rows = [(d["truth"]["class"], majority(d["truth_box"]["folds"]))
            for d in docs if d.get("truth_box") and d["truth_box"].get("folds")]
    return classes(*zip(*rows)) if rows else None


def truth_boxes_torch(data_dir, folder, work, accept):
    """The ensemble, its first model and the ablations on the truth's boxes, paired."""
    run = steps.Run(data_dir, work, {})
    patches = steps.Patches(steps.sadt_files(run, accept), steps.classify_label)
    rows = [r for r in patches.refresh() if int(r[4]["rank"]) == 0]
    if not rows:
        return None
    truth = np.array([r[1] for r in rows])
    pairs = [(hu, rect) for _, _, hu, rect, _ in rows]
    spec = bundle.SMALL["classify"]
    p = [steps.sadt_predict(bundle.load_folded("sadt", spec["params"],
                                               os.path.join(folder, s + ".safetensors")), pairs).numpy()
         for s in spec["files"]]
    votes = np.array([majority([q[i] for q in p]) for i in range(len(rows))])
    out = {"source": "PyTorch on hepar-prepare's slices", "ensemble": classes(truth, votes),
           "first model": classes(truth, p[0].argmax(1)), "ablations": {}}
    for label, (name, changes) in steps.ABLATIONS.items():
        path = os.path.join(work, name + "0.pt")
        if not os.path.exists(path):
            continue
        net = build("sadt", {**spec["params"], **changes}).eval()
        checkpoint = torch.load(path, weights_only=False)
        net.load_state_dict(checkpoint["net"])
        found = steps.sadt_predict(net, pairs).numpy().argmax(1)
        out["ablations"][label] = {
            **classes(truth, found), "steps": checkpoint["step"],
            "mcnemar_against_first_model": mcnemar(p[0].argmax(1) == truth, found == truth)}
    return out


def report(metrics_dir, folder, work, data_dir=None):
    path = os.path.join(folder, "metrics.json")
    doc = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            doc = json.load(f)
    docs = read_json(os.path.join(metrics_dir, "test108"))
    if docs:
        doc["test108"] = whole_pipeline(docs)
        doc["test108"]["truth_boxes"] = truth_boxes_c(docs)
    docs = read_json(os.path.join(metrics_dir, "test400"))
    if docs:
        doc["test400_pipeline"] = truth_boxes_c(docs)
    if data_dir:
        figures = truth_boxes_torch(data_dir, folder, work, lambda s: 1_100_000 <= s < 1_100_400)
        if figures:
            doc["test400"] = figures
    with open(path + ".part", "w", encoding="utf-8") as f:
        json.dump(doc, f, indent=1)
        f.write("\n")
    os.replace(path + ".part", path)
    print(json.dumps({k: v for k, v in doc.items() if k != "training"}, indent=1), flush=True)
