"""docs/bundle-small.md out of metrics.json: the figures as a page."""
import json
import os

from .evaluate import CLASSES, HERE

GATES = [  # words, where, gate, aim, the paper's figure on patients
    ("P1TD-10, IoU .1", ("p1td_10",), .90, .97, .938),
    ("P1TD-1, detector alone", ("p1td_1",), .55, .80, .795),
    ("top-1 after KSF", ("top1_after_ksf",), None, .85, None),
]


def number(x):
    return "-" if x is None else f"{x:.3f}".lstrip("0") if 0 <= x < 1 else f"{x:.3f}"


def interval(d, key="value"):
    if d is None:
        return "not measured"
    ci = d.get("ci95") or d.get(key + "_ci95")
    return f"{number(d[key])} ({number(ci[0])} to {number(ci[1])})" if ci else number(d[key])


def verdict(value, gate):
    return "" if gate is None or value is None else "met" if value >= gate else "**not met**"


def pipeline_rows(t):
    rows = []
    if t.get("liver_dice"):
        dice = {k: v["mean"] for k, v in t["liver_dice"].items()}
        other = sum(dice[p] for p in "NC A D".split()) / 3
        for words, value, gate, aim in (("liver Dice, V", dice["V"], .94, .96),
                                        ("liver Dice, other phases", other, .91, .94)):
            rows.append((words, number(value), number(gate), verdict(value, gate), number(aim), "-"))
    for words, keys, gate, aim, paper in GATES:
        d = t.get(keys[0])
        if keys[0] == "top1_after_ksf" and t.get("p1td_1"):
            gate = t["p1td_1"]["value"] + .05
        rows.append((words, interval(d), number(gate), verdict(d and d["value"], gate), number(aim),
                     number(paper)))
    if t.get("ksf"):
        v = t["ksf"]["accuracy"]
        rows.append(("KSF accuracy", number(v), ".830", verdict(v, .83), ".900", ".887"))
        rows.append(("KSF F1 of primary", number(t["ksf"]["f1_primary"]), "-", "", "-", "-"))
    c = t.get("four_classes")
    if c:
        low = c["accuracy_ci95"][0]
        rows.append(("four classes, accuracy", interval(c, "accuracy"), "lower end > .556",
                     "met" if low > .556 else "**not met**", ".750", ".657"))
        rows.append(("four classes, mean F1", interval(c, "mean_f1"), ".500",
                     verdict(c["mean_f1"], .5), ".650", ".583"))
    return rows


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    return lines + ["| " + " | ".join(str(c) for c in r) + " |" for r in rows]


def added(history, key):
    """"222.0 + 52.0": of a network that started from a bundle."""
    parts = []
    while history:
        if key in history:
            parts.insert(0, str(history[key]))
        history = history.get("before")
    return " + ".join(parts)


def page(doc):
    out = ["# The bundle `models/small`, measured", "",
           "Trained and measured on synthetic phantoms only (training/README.md). It proves the",
           "machinery and says nothing about patients. Intervals: 95 %, bootstrap over patients.", ""]
    t = doc.get("test108")
    if t:
        out += [f"## Whole pipeline in C, test-108 (n = {t['n']})", ""]
        out += table(["figure", "value", "gate", "", "aim", "paper, patients"], pipeline_rows(t))
        out += ["", "Also: centre of the first candidate in a primary's box "
                + interval(t.get("centre_1")) + "; IoU .3: first "
                + interval(t.get("p1td_1_iou.3")) + ", any of ten "
                + interval(t.get("p1td_10_iou.3")) + ".", ""]
        c = t.get("four_classes")
        if c:
            out += ["F1: " + ", ".join(f"{k} {number(v)}" for k, v in c["f1"].items()) + ".", ""]
            out += table(["truth \\ found", *CLASSES, "none"],
                         [(n, *r) for n, r in
                          zip(CLASSES, c["confusion_rows_truth_last_column_none"])]) + [""]
        if t.get("truth_boxes"):
            out += ["With the truth's boxes on the same patients: accuracy "
                    + interval(t["truth_boxes"], "accuracy") + ".", ""]
    t = doc.get("test400")
    if t:
        e = t["ensemble"]
        out += [f"## Four classes on the truth's boxes, test-400 (n = {e['n']}, gate .700)", "",
                f"Source: {t['source']}. Ablations are one model each, on the fold of the first",
                "model and from the same start; p is McNemar's exact, against the first model.", ""]
        steps = doc.get("training", {}).get("networks", {}).get("cls0", {}).get("steps", "")
        rows = [("ensemble of five", interval(e, "accuracy"), number(e["mean_f1"]), "", ""),
                ("first model", interval(t["first model"], "accuracy"),
                 number(t["first model"]["mean_f1"]), steps, "")]
        for name, a in t["ablations"].items():
            m = a["mcnemar_against_first_model"]
            p = "< .0001" if m["p"] < 1e-4 else f"{m['p']:.4f}"
            rows.append((name, interval(a, "accuracy"), number(a["mean_f1"]), a["steps"],
                         f"{p} ({m['only_first']} : {m['only_second']})"))
        out += table(["network", "accuracy", "mean F1", "steps", "p (only first : only this right)"], rows)
        out += ["", "F1 of the ensemble: "
                + ", ".join(f"{k} {number(v)}" for k, v in e["f1"].items()) + ".", ""]
    t = doc.get("training")
    if t:
        out += ["## How it was trained", ""]
        for i, studies in enumerate([*t.get("studies_before", []), t["studies"]]):
            out += [("Then, from that bundle: " if i else "Studies: ")
                    + ", ".join(f"{k} {v}" for k, v in studies.items()) + ".", ""]
        c = t.get("calibration")
        if c:
            out += [f"Set on validation patients: sizes times {c['size_gain']:g}, class logits plus "
                    f"{c['class_logits']}.", ""]
        out += table(["network", "minutes", "steps", "skipped", "last validation"],
                     [(k, added(h, "minutes"), added(h, "steps") or h.get("kind"), added(h, "skipped"),
                       json.dumps(h.get("validation"))) for k, h in t["networks"].items()]) + [""]
    if doc.get("not_done"):
        out += ["## Not done", ""] + [f"- {line}" for line in doc["not_done"]] + [""]
    return "\n".join(out)


def write(folder, path=None):
    with open(os.path.join(folder, "metrics.json"), encoding="utf-8") as f:
        doc = json.load(f)
    path = path or os.path.join(HERE, "docs", f"bundle-{os.path.basename(folder)}.md")
    with open(path, "w", encoding="utf-8") as f:
        f.write(page(doc))
    print(f"report: {path}", flush=True)
