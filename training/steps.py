"""One function for each network: data, loss, validation."""
import os
import random

import torch
from monai.losses import DiceLoss
from safetensors.torch import load_file

from . import data, decode, losses
from .bundle import PATCH, SMALL
from .nets import build, recentre, unfold
from .nets.sadt import grid_mask
from .trainer import Trainer

TRAIN_END, VALID_END = 400, 460        # seeds of the training cohort, then validation
MORE_PRIMARIES = 2000                  # more patients for SaDT alone, from this seed
VALID_PRIMARIES = 90_000               # and more validation for it
KSF_SEEDS = (100_000, 200_000)
CL3, CL2 = torch.channels_last_3d, torch.channels_last


class Run:
    """Where things are and how long each network may train."""

    def __init__(self, data_dir, work_dir, minutes, device="cpu", start=None):
        self.data, self.work, self.minutes, self.device = data_dir, work_dir, minutes, device
        self.start = start

    def files(self, what, accept):
        return data.Files(self.data, what, accept)

    def begin(self, net, stem, name):
        """A network without a checkpoint starts from the bundle `start`, if one is named."""
        if not self.start or os.path.exists(os.path.join(self.work, name + ".pt")):
            return False
        path = os.path.join(self.start, stem + ".safetensors")
        taken = unfold(net, load_file(path))
        print(f"{name}: started from {path}, {taken} tensors", flush=True)
        return True


def is_train(seed):
    return seed < TRAIN_END or VALID_END <= seed < VALID_PRIMARIES


def is_valid(seed):
    return TRAIN_END <= seed < VALID_END or VALID_PRIMARIES <= seed < KSF_SEEDS[0]


def stack(samples):
    return [torch.stack(list(column)) for column in zip(*samples)]


def cast(device):
    return torch.autocast(device, torch.bfloat16)


def train_liver(run, patch=(64, 80, 96), batch=2):
    spec = SMALL["liver"]
    files, valid = run.files("liver", is_train), run.files("liver", is_valid)
    files.wait(4)
    torch.manual_seed(1)
    t = Trainer("liver", build("unet3d", spec["params"]).to(run.device), run.work,
                run.minutes["liver"], 3e-3, channels_last=CL3)
    dice = DiceLoss(sigmoid=True, batch=True)

    def loss(t):
        x, y = stack(data.liver_sample(files, t.rng, patch) for _ in range(batch))
        x, y = x.to(run.device, memory_format=CL3), y.to(run.device)
        with cast(run.device):
            logit = t.net(x)["logit"]
        logit = logit.float()
        bce = torch.nn.functional.binary_cross_entropy_with_logits(logit, y)
        soft = dice(logit, y)
        return bce + soft, {"bce": bce.detach(), "dice": soft.detach()}

    def check():
        out = {}
        for i, seed in enumerate(valid.list()[:8]):
            with valid.open(seed) as f:
                x, y = f.get_slice("hu")[i % 4], (f.get_tensor("mask") >> i % 4 & 1).bool()
            with cast(run.device):
                p = t.net(data.window(x, spec["input"])[None, None].to(run.device))["logit"].cpu()[0, 0] > 0
            d = 2 * int((p & y).sum()) / max(1, int(p.sum()) + int(y.sum()))
            out[f"{seed}{'NAVD'[i % 4]}"] = round(d, 4)
        out["mean"] = round(sum(out.values()) / max(1, len(out)), 4)
        return out

    t.run(loss, check, 300)


def detector_figures(net, files, seeds, device):
    """P1TD on studies' four phases: IoU .1 and .3, centre in box (Python twin)."""
    stride = SMALL_STRIDE
    sums = {"P1TD-1": 0, "P1TD-10": 0, "iou.3-1": 0, "iou.3-10": 0, "centre-1": 0}
    for seed in seeds:
        with files.open(seed) as f:
            hu, boxes = f.get_tensor("hu"), f.get_tensor("boxes")
            boxes = boxes[f.get_tensor("primary").bool()]
            mm = f.get_tensor("spacing_mm").repeat(2)
        with cast(device):
            out = net(data.window(hu)[:, None].to(device, memory_format=CL3))
        out = {k: v.float().cpu() for k, v in out.items()}
        per_phase = {}
        for p in range(4):
            scores, found = decode.decode(out["hm"][p], out["whd"][p], out["off"][p], stride)
            per_phase[p] = (scores, found * mm)
        _, found = decode.merge(per_phase)
        truth = boxes * mm
        best = torch.tensor([float(decode.iou(b, truth).max()) for b in found] or [0.])
        centre = False
        if len(found):
            c = (found[0, :3] + found[0, 3:]) / 2
            centre = bool(((c >= truth[:, :3]) & (c <= truth[:, 3:])).all(1).any())
        sums["P1TD-1"] += bool(best[0] >= .1)
        sums["P1TD-10"] += bool((best >= .1).any())
        sums["iou.3-1"] += bool(best[0] >= .3)
        sums["iou.3-10"] += bool((best >= .3).any())
        sums["centre-1"] += centre
    return {**{k: round(v / max(1, len(seeds)), 3) for k, v in sums.items()}, "n": len(seeds)}


SMALL_STRIDE = (2, 4, 4)
# Of networks that have learnt before: at full rate they forget first, and half an hour
# does not bring it back.
STARTED_LR = 3e-4


# Most of the budget goes on windows around lesions, the end on whole crops: on the
# CPU that doubles how many lesions a minute shows.
DETECTOR_WINDOW, WINDOW_SHARE = (48, 112, 160), .7


def train_detector(run, batch=4):
    spec = SMALL["detector"]
    files, valid = run.files("detect", is_train), run.files("detect", is_valid)
    files.wait(8)
    torch.manual_seed(2)
    net = build("hourglass3d", spec["params"]).to(run.device)
    started = run.begin(net, "detector", "detector")
    t = Trainer("detector", net, run.work, run.minutes["detector"],
                STARTED_LR if run.start else 1e-3, channels_last=CL3)
    if started:
        samples = [[data.detector_sample(files, t.rng)[0] for _ in range(batch)] for _ in range(8)]
        with cast(run.device):
            recentre(net, [(torch.stack(s).to(run.device, memory_format=CL3),) for s in samples])

    def loss(t):
        xs, targets = [], []
        crop = DETECTOR_WINDOW if t.share() < WINDOW_SHARE else None
        for _ in range(batch):
            x, boxes, spacing = data.detector_sample(files, t.rng, crop=crop)
            xs.append(x)
            shape = [-(-n // s) for n, s in zip(x.shape[1:], net.stride)]
            targets.append(losses.detector_target(boxes, shape, net.stride, spacing))
        hm, whd, off, weight = (v.to(run.device) for v in stack(targets))
        x = torch.stack(xs).to(run.device, memory_format=CL3)
        with cast(run.device):
            outs = t.net(x)
        total, parts = 0., {"hm": 0., "size": 0., "off": 0.}
        for out in outs:
            a = losses.heatmap_loss(out["hm"][:, 0], hm)
            b = losses.masked_l1(out["whd"], whd, weight, ratio=True)
            c = losses.masked_l1(out["off"], off, weight)
            # The size loss is of ratios, so its weight is 1 and not .1.
            total = total + (a + b + c) / len(outs)
            for k, v in zip(parts, (a, b, c)):
                parts[k] += float(v.detach()) / len(outs)
        return total, parts

    t.run(loss, lambda: detector_figures(net, valid, valid.list()[:40], run.device), 420)


def box_of(mask):
    """The smallest rectangle (h, w) that holds every pixel of a mask."""
    box = torch.zeros_like(mask)
    at = mask.nonzero()
    if len(at):
        (y1, x1), (y2, x2) = at.min(0).values.tolist(), at.max(0).values.tolist()
        box[y1:y2 + 1, x1:x2 + 1] = True
    return box


def train_keyslice(run, batch=8):
    spec = SMALL["keyslice"]
    files, valid = run.files("seg", is_train), run.files("seg", is_valid)
    files.wait(8)
    torch.manual_seed(3)
    t = Trainer("keyslice", build("unet25d", spec["params"]).to(run.device), run.work,
                run.minutes["keyslice"], 2e-3, channels_last=CL2)
    dice = DiceLoss(sigmoid=True, batch=True)

    def loss(t):
        x, y = stack(data.seg_sample(files, t.rng) for _ in range(batch))
        with cast(run.device):
            logit = t.net(x.to(run.device, memory_format=CL2))["logit"]
        logit, y = logit.float(), y.to(run.device)
        bce = torch.nn.functional.binary_cross_entropy_with_logits(logit, y)
        soft = dice(logit, y)
        return bce + .5 * soft, {"bce": bce.detach(), "dice": soft.detach()}

    def check():
        inter, total = [0, 0], [0, 0]  # every pixel; the lesion's box alone
        for seed in valid.list()[:20]:
            with valid.open(seed) as f:
                x, y = f.get_tensor("hu")[:4], f.get_tensor("mask")[:4].bool()
            with cast(run.device):
                p = t.net(data.window(x).to(run.device))["logit"][:, 0].cpu() > 0
            near = torch.stack([box_of(m) for m in y])
            for k, (q, m) in enumerate(((p, y), (p & near, y))):
                inter[k] += int((q & m).sum())
                total[k] += int(q.sum()) + int(m.sum())
        dice = [round(2 * i / max(1, n), 4) for i, n in zip(inter, total)]
        return {"dice of all pixels": dice[0], "dice in the lesions' box": dice[1]}

    t.run(loss, check, 240)


# SaDT. ---------------------------------------------------------------------------------

POOL = round(PATCH["spacing_mm"] / .7)  # hepar-prepare writes .7 mm
CROP = PATCH["crop"]


class Store:
    """Keeps tensors of one shape in blocks: thousands of small survivors between the
    temporaries of reading would tear the heap to several times their size."""

    def __init__(self, rows=256):
        self.rows, self.block, self.used = rows, None, rows

    def keep(self, t):
        if self.used == self.rows:
            self.block, self.used = torch.empty(self.rows, *t.shape, dtype=t.dtype), 0
        self.used += 1
        return self.block[self.used - 1].copy_(t)


class Patches:
    """Every usable row of the slice files in memory, int16 (0.2 MB each)."""

    def __init__(self, files, select):
        self.files, self.select, self.rows, self.seen = files, select, [], set()
        self.store = Store()

    def refresh(self):
        for files in self.files:
            for seed in files.list():
                if seed not in self.seen:
                    self.seen.add(seed)
                    self.read(files, seed)
        return self.rows

    def read(self, files, seed):
        with files.open(seed) as f:
            keys = [k for k in f.keys() if k != "hu"]
            table = {k: f.get_tensor(k).tolist() for k in keys}
            hu = f.get_slice("hu")
            for i in range(len(table["rect"])):
                row = {k: v[i] for k, v in table.items()}
                # the largest primary's slices come first in a file
                row["top"] = bool(row["primary"]) and row["lesion"] == table["lesion"][0]
                label = self.select(row)
                if label is not None:
                    self.rows.append((seed, label, self.store.keep(data.coarser(hu[i], POOL)),
                                      [v / POOL for v in row["rect"]], row))


def sadt_files(run, accept):
    return [run.files(what, accept) for what in ("slices", "primaries")]


def classify_label(row):
    """The largest primary of a study is the one SaDT learns from."""
    return int(row["class"]) if row["top"] and int(row["class"]) >= 0 else None


def sadt_batch(chosen, rng, device, crop=CROP):
    xs, boxes = zip(*[data.patch_sample(hu, rect, rng, crop) for _, _, hu, rect, _ in chosen])
    mask = grid_mask(boxes, (crop, crop))
    label = torch.tensor([c[1] for c in chosen])
    return torch.stack(xs).to(device, memory_format=CL2), mask.to(device), label.to(device)


def sadt_predict(net, rows, device="cpu", crop=CROP, batch=16):
    """Softmax of rows (hu, rect) without augmentation: (n, classes)."""
    out = []
    for i in range(0, len(rows), batch):
        pairs = [data.patch_sample(hu, rect, None, crop) for hu, rect in rows[i:i + batch]]
        x = torch.stack([p[0] for p in pairs]).to(device, memory_format=CL2)
        mask = grid_mask([p[1] for p in pairs], (crop, crop)).to(device)
        with torch.no_grad(), cast(device):
            out.append(torch.softmax(net(x, mask)["logit"].float(), 1).cpu())
    return torch.cat(out) if out else torch.zeros(0, 1)


SETTLE_BATCHES = 60  # of 32: what batch norm then keeps
SMALL_CROP, SMALL_SHARE = CROP * 5 // 8, .75  # pixels; share of batches that use it


def fits(row, crop=SMALL_CROP):
    y1, x1, y2, x2 = row[3]
    return max(y2 - y1, x2 - x1) * 1.4 + 32 / POOL <= crop


def crop_and_rows(pool, rng, batch):
    """A batch, and the crop it is seen at: lesions up to 6 cm need no full crop.

    The network is convolutional and pools under the mask, so the smaller crop saves
    time (2.5 times); the rest of the batches keep the size that is served. Batch norm
    is the exception: what follows the trunk has it settled at the served size.
    """
    if rng.random() >= SMALL_SHARE:
        return CROP, [rng.choice(pool) for _ in range(batch)]
    chosen = []
    for _ in range(20 * batch):
        row = rng.choice(pool)
        if fits(row):
            chosen.append(row)
        if len(chosen) == batch:
            return SMALL_CROP, chosen
    return CROP, [rng.choice(pool) for _ in range(batch)]


def train_sadt(run, name, params, rows, valid_rows, weights, minutes, seed=0, batch=16,
               lr=2e-3, to_class=None, trunk=False, stem=None):
    """rows(): things to choose from, (seed, label, hu, rect, row). stem: the file of a
    bundle that it starts from, if one is named."""
    torch.manual_seed(100 + seed)
    net = build("sadt", params).to(run.device)
    # Weights that were learnt before: of a bundle, which knows batch norm as it was
    # settled, or of the trunk, whose batch norm is to be settled.
    started = bool(stem and run.start)
    if started:
        lr = STARTED_LR
        run.begin(net, stem, name)
    from_trunk = trunk and not started and start_from_trunk(net, run)
    t = Trainer(name, net, run.work, minutes, lr, weight_decay=1e-2, seed=seed, channels_last=CL2)
    weight = torch.tensor(weights).to(run.device)
    if t.step == 0:
        t.extra["settled"] = started or from_trunk
        if from_trunk:
            with cast(run.device):
                net.settle(sadt_batch(chosen, t.rng, run.device)[:2]
                           for chosen in ([t.rng.choice(rows()) for _ in range(2 * batch)]
                                          for _ in range(SETTLE_BATCHES)))
    net.settled = t.extra["settled"]

    def loss(t):
        pool = rows()
        crop, chosen = crop_and_rows(pool, t.rng, batch)
        x, mask, label = sadt_batch(chosen, t.rng, run.device, crop)
        with cast(run.device):
            out = t.net(x, mask)
        total, parts = 0., {}
        if started:  # the other head was for the start, and a bundle does not hold it
            out.pop("aux", None)
        for name, logit in out.items():
            total = total + losses.focal_loss(logit, label, weight)
            parts["acc " + name] = (logit.detach().argmax(1) == label).float().mean()
        return total, parts

    def check():
        pool = valid_rows()
        if not pool:
            return {}
        p = sadt_predict(t.net, [(hu, rect) for _, _, hu, rect, _ in pool], run.device)
        p = to_class(p) if to_class else p
        y = torch.tensor([r[1] for r in pool])
        return {"acc": round(float((p.argmax(1) == y).float().mean()), 3), "n": len(pool)}

    t.run(loss, check, 120)
    return t


# The trunk learns every kind of thing that has a box, and its absence: many more
# lesions than the largest primaries alone, once for the five folds and KSF.
KINDS = 15  # hp_phantom_kind 0..12 (what an annotator would box), 13 other, 14 nothing


def kind_label(row):
    kind = int(row["kind"])
    return 14 if kind < 0 else min(kind, 13)


class Balanced:
    """rng.choice on this: a label by the root of its frequency, then a row of it."""

    def __init__(self, rng):
        self.rng, self.by, self.count = rng, {}, 0

    def add(self, rows):
        for r in rows[self.count:]:
            self.by.setdefault(r[1], []).append(r)
        self.count = len(rows)
        self.labels = sorted(self.by)
        self.weights = [len(self.by[k]) ** .5 for k in self.labels]
        return self

    def __len__(self):
        return self.count

    def __getitem__(self, _index):
        label = self.rng.choices(self.labels, self.weights)[0]
        return self.rng.choice(self.by[label])


def train_trunk(run):
    spec = SMALL["classify"]
    run.files("slices", is_train).wait(20)
    patches, pool = Patches(sadt_files(run, is_train), kind_label), Balanced(random.Random(5))
    valid = Patches(sadt_files(run, is_valid), classify_label)

    def check_rows():
        """Validation by the class that the subtype belongs to."""
        return [(s, k, hu, rect, row) for s, k, hu, rect, row in valid.refresh()
                if int(row["rank"]) == 0]

    train_sadt(run, "trunk", {**spec["params"], "classes": KINDS},
               lambda: pool.add(patches.refresh()), check_rows, [1.] * KINDS,
               run.minutes["trunk"], seed=77, to_class=kind_to_class)


CLASS_OF_KIND = [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]


def kind_to_class(p):
    """Probabilities of the kinds -> of the four classes."""
    out = torch.zeros(len(p), 4)
    for kind, c in enumerate(CLASS_OF_KIND):
        out[:, c] += p[:, kind]
    return out


def start_from_trunk(net, run):
    """Everything but the FC from the trunk, when it is there and has the same widths."""
    path = os.path.join(run.work, "trunk.pt")
    if not os.path.exists(path):
        return False
    trunk = torch.load(path, weights_only=False)
    own = net.state_dict()
    fit = {k: v for k, v in trunk["net"].items() if not k.startswith(("fc.", "aux."))
           and k in own and own[k].shape == v.shape}
    own.update(fit)
    net.load_state_dict(own)
    print(f"started from the trunk: {len(fit)} of {len(own)} tensors", flush=True)
    return True


def fold_of(seed):
    """Five folds by patient; classes follow the seed, so hashing stratifies on average.

    The trunk has seen all folds: a fold's own validation is optimistic, and only the
    held-out cohorts count."""
    return random.Random(seed * 31 + 5).randrange(5)


def root_weights(labels, classes=4):
    """Inverse square root of the frequency, mean 1 over the classes."""
    count = torch.bincount(torch.tensor(labels), minlength=classes).clamp(min=1).float()
    w = count.rsqrt()
    return (w / w.mean()).tolist()


def train_classify(run, folds=range(5), changes=None, name="cls", minutes=None):
    """Five models; fold k is held out of model k. `changes`: params of an ablation."""
    params = {**SMALL["classify"]["params"], **(changes or {})}
    run.files("slices", is_train).wait(40)
    patches = Patches(sadt_files(run, is_train), classify_label)
    rows = patches.refresh()
    print(f"{name}: {len(rows)} slices of {len(patches.seen)} studies", flush=True)
    weights = root_weights([r[1] for r in rows])
    for k in folds:
        train = [r for r in rows if fold_of(r[0]) != k]
        valid = [r for r in rows if fold_of(r[0]) == k and int(r[4]["rank"]) == 0]
        train_sadt(run, f"{name}{k}", params, lambda: train, lambda: valid, weights,
                   minutes or run.minutes["classify"], seed=k, lr=6e-4, trunk=True, stem=f"cls{k}")


def ksf_label(row):
    if "iou" in row:
        i = float(row["iou"])
        return 1 if i >= .3 else 0 if i < .1 else None
    return int(row["primary"])


def train_ksf(run):
    """Candidates of the detector on seeds B, the truth's distractors, random boxes."""
    spec = SMALL["ksf"]
    pools = []
    for what, accept in (("candidates", lambda s: s >= KSF_SEEDS[0]), ("slices", is_train)):
        p = Patches([run.files(what, accept)], ksf_label)
        p.refresh()
        pools.append(p.rows)
        print(f"ksf: {len(p.rows)} rows of {len(p.seen)} studies in {what}", flush=True)
    cand = [r for r in pools[0] if r[0] % 10]
    valid = [r for r in pools[0] if r[0] % 10 == 0]
    by = {0: [], 1: []}
    for r in cand:
        by[r[1]] += [r] * 3  # the detector's own mistakes matter most
    for r in pools[1]:
        if r[1] == 0 or int(r[4]["rank"]) in (0, 2, 4):
            by[r[1]].append(r)

    pool = EvenPool(by, random.Random(4))
    train_sadt(run, "ksf", spec["params"], lambda: pool, lambda: valid, [1., 1.],
               run.minutes["ksf"], seed=9, lr=6e-4, trunk=True, stem="ksf")


class EvenPool:
    """rng.choice on this gives each label half of the time."""

    def __init__(self, by, rng):
        self.by, self.rng = by, rng

    def __len__(self):
        return 1 << 30

    def __getitem__(self, i):
        pool = self.by[i & 1] or self.by[1 - (i & 1)]
        return pool[self.rng.randrange(len(pool))]


# What the bundle's report sets beside SaDT: same data,
# same fold, same minutes, one model each.
ABLATIONS = {
    "mask off": ("abl_nomask", {"mask": False}),
    "average pooling under the mask": ("abl_maskgap", {"pool": "gap"}),
    "plain average pooling": ("abl_gap", {"pool": "gap", "mask": False}),
}


def train_ablations(run):
    for name, changes in ABLATIONS.values():
        train_classify(run, folds=[0], changes=changes, name=name)
