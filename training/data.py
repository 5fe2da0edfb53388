"""Training tensors as hepar-prepare writes them, and their augmentation.

Layout: DIR/<what>/<seed %07d>.safetensors, int16 HU, phases NC A V D (the keys stand
in each reader). Files may still be growing in number while training runs: the list
is read again now and then, so training begins when the first studies are there.
"""
import math
import os
import random
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open

from .bundle import INPUT, LESION_INPUT


def window(hu, spec=LESION_INPUT):
    """HU -> network input with a stage's `input`."""
    lo, hi = spec["window"]
    x = (hu.float().clamp(lo, hi) - lo) / (hi - lo)
    return (x - spec["mean"]) / spec["std"]


class Files:
    """The studies of one kind of tensor whose seeds a predicate accepts."""

    def __init__(self, root, what, accept, refresh_s=60):
        self.folder, self.accept, self.refresh_s = os.path.join(root, what), accept, refresh_s
        self.read_at, self.seeds = 0., []

    def list(self):
        if time.monotonic() - self.read_at > self.refresh_s or not self.seeds:
            names = os.listdir(self.folder) if os.path.isdir(self.folder) else []
            seeds = [int(n[:-12]) for n in names if n.endswith(".safetensors")]
            self.seeds = sorted(s for s in seeds if self.accept(s))
            self.read_at = time.monotonic()
        return self.seeds

    def wait(self, at_least, say=print):
        while len(self.list()) < at_least:
            say(f"waiting for {at_least} studies in {self.folder}, have {len(self.seeds)}")
            self.read_at = 0.
            time.sleep(10)

    def open(self, seed):
        return safe_open(os.path.join(self.folder, f"{seed:07d}.safetensors"), "pt")

    def pick(self, rng):
        return rng.choice(self.list())


# Augmentation in HU, before the window. ------------------------------------------------

def curve(x, rng, reach=15.):
    """A random monotone curve with three knots, gain and offset."""
    knots = np.array([-150., 0., 60., 120., 300.])
    moved = knots + np.array([0.] + [rng.uniform(-reach, reach) for _ in range(3)] + [0.])
    moved = np.maximum.accumulate(moved)
    y = torch.from_numpy(np.interp(np.arange(-300, 601), knots, moved, left=np.nan, right=np.nan))
    base = torch.arange(-300, 601).double()
    y = torch.where(torch.isnan(y), base, y).float()
    return y[(x.clamp(-300, 600) + 300).long()] * rng.uniform(.95, 1.05) + rng.uniform(-8, 8)


def blur(x, sigma, axes):
    """Gaussian blur along the given axes of (.., spatial) by a short kernel."""
    r = max(1, int(2.5 * sigma + .5))
    k = torch.exp(-torch.arange(-r, r + 1).float() ** 2 / (2 * sigma * sigma))
    k = k / k.sum()
    for axis in axes:
        y = torch.zeros_like(x)
        n = x.shape[axis]
        for i, w in enumerate(k.tolist()):
            index = (torch.arange(n) + i - r).clamp(0, n - 1)
            y += w * x.index_select(axis, index)
        x = y
    return x


def thick(x, factor):
    """Slices of `factor` times the thickness and back (axis -3)."""
    n = x.shape[-3]
    shape = x.shape[-2:]
    y = F.interpolate(x[None, None], (max(4, int(n / factor)), *shape), mode="area")
    return F.interpolate(y, (n, *shape), mode="trilinear", align_corners=False)[0, 0]


def intensity(x, rng, noise_hu=15., p_blur=.3, axes=(-1, -2), p_thick=0.):
    """HU augmentation of one phase (.., H, W)."""
    x = curve(x, rng)
    if rng.random() < p_blur:
        x = blur(x, rng.uniform(.4, 1.), axes)
    if rng.random() < p_thick:
        x = thick(x, rng.uniform(1.3, 2.5))
    if rng.random() < .5:
        x = x + torch.randn_like(x) * rng.uniform(0, noise_hu)
    return x


def window_resize(x, lo, size, out, pad=INPUT["pad_hu"]):
    """The box [lo, lo + size) of a volume or plane (.., spatial) resized to `out`.

    Whole voxels; outside is padded. Linear, area when shrinking by a lot does not
    occur here (scale .8 to 1.25)."""
    nd = len(out)
    lo = [int(round(v)) for v in lo]
    hi = [a + max(1, int(round(s))) for a, s in zip(lo, size)]
    n = x.shape[-nd:]
    inside = tuple(slice(max(a, 0), min(b, m)) for a, b, m in zip(lo, hi, n))
    y = x[(..., *inside)]
    pads = []
    for a, b, m in reversed(list(zip(lo, hi, n))):
        pads += [max(0, -a), max(0, b - m)]
    if any(pads):
        y = F.pad(y, pads, value=pad)
    lead = y.shape[:-nd]
    if tuple(y.shape[-nd:]) != tuple(out):
        mode = "trilinear" if nd == 3 else "bilinear"
        y = F.interpolate(y.reshape(1, -1, *y.shape[-nd:]), tuple(out), mode=mode,
                          align_corners=False).reshape(*lead, *out)
    return y, lo, [b - a for a, b in zip(lo, hi)]


# Samples. ------------------------------------------------------------------------------

def public_like(seed):
    """40 % of the detector's studies: one phase, every focal lesion is positive."""
    return random.Random(seed * 7919 + 1).random() < .4


def detector_boxes(f, seed):
    boxes, primary = f.get_tensor("boxes"), f.get_tensor("primary").bool()
    if public_like(seed):
        keep = f.get_tensor("focal").bool() & (f.get_tensor("diameter_mm") >= 5)
        return boxes[keep | primary]
    return boxes[primary]


def detector_crop(x, boxes, rng, size):
    """A window of `size`, mostly one that holds the centre of a lesion."""
    lo = [rng.randint(0, n - s) for n, s in zip(x.shape, size)]
    if len(boxes) and rng.random() < .85:
        box = boxes[rng.randrange(len(boxes))]
        for axis, s in enumerate(size):
            c = int((box[axis] + box[axis + 3]) / 2)
            a, b = max(0, c - s + 8), min(x.shape[axis] - s, c - 8)
            lo[axis] = rng.randint(a, b) if a <= b else min(max(lo[axis], 0), x.shape[axis] - s)
    x = x[tuple(slice(a, a + s) for a, s in zip(lo, size))]
    return x, boxes - torch.tensor(lo + lo, dtype=boxes.dtype)


def detector_sample(files, rng, augment=True, crop=None):
    """x (1, D, H, W), boxes (n, 6), voxel spacing (3)."""
    seeds = files.list()
    while True:  # by (patient, phase): a public-like patient has one phase only
        seed = rng.choice(seeds)
        if public_like(seed):
            if rng.random() < .75:
                continue
            phase = random.Random(seed).randrange(4)
        else:
            phase = rng.randrange(4)
        break
    with files.open(seed) as f:
        x = f.get_slice("hu")[phase].float()
        boxes = detector_boxes(f, seed).clone()
        spacing = f.get_tensor("spacing_mm").tolist()
    if augment:
        shape = x.shape
        x = intensity(x, rng, p_blur=.15, p_thick=.15)
        if rng.random() < .8:
            both = rng.uniform(.87, 1.15)
            size = [n * both * rng.uniform(.95, 1.05) for n in shape]
            lo = [(n - s) / 2 + rng.uniform(-.08, .08) * n for n, s in zip(shape, size)]
            x, lo, size = window_resize(x, lo, size, shape)
            for axis in range(3):
                k = shape[axis] / size[axis]
                boxes[:, axis] = (boxes[:, axis] - lo[axis]) * k
                boxes[:, axis + 3] = (boxes[:, axis + 3] - lo[axis]) * k
                spacing[axis] /= k
        if crop:
            x, boxes = detector_crop(x, boxes, rng, crop)
    return window(x)[None], boxes, spacing


def liver_sample(files, rng, patch):
    """x, mask (1, d, h, w) patches of the liver network's grid."""
    seed, phase = files.pick(rng), rng.randrange(4)
    with files.open(seed) as f:
        hu, mask = f.get_slice("hu"), f.get_slice("mask")
        n = mask.get_shape()  # bit p of the mask: liver in phase p
        size = [min(p, m) for p, m in zip(patch, n)]
        lo = [rng.randint(0, m - s) for m, s in zip(n, size)]
        box = tuple(slice(a, a + s) for a, s in zip(lo, size))
        x, y = hu[(phase, *box)].float(), (mask[box] >> phase & 1).float()
    x = intensity(x, rng, noise_hu=20., p_blur=.3, p_thick=.2)
    if rng.random() < .7:
        size = [s * rng.uniform(.85, 1.18) for s in x.shape]
        lo = [(m - s) / 2 for m, s in zip(x.shape, size)]
        shape = x.shape
        x = window_resize(x, lo, size, shape)[0]
        y = (window_resize(y, lo, size, shape, pad=0.)[0] > .5).float()
    return window(x, INPUT)[None], y[None]


def seg_place(mask, crop, rng):
    """Corner of a crop of a mask (h, w): three in four hold a pixel of a lesion."""
    places = mask.nonzero()
    room = [max(0, n - crop) for n in mask.shape]
    if not len(places) or rng.random() >= .75:
        return [rng.randint(0, r) for r in room]
    at = places[rng.randrange(len(places))].tolist()
    margin = crop // 8
    return [min(r, max(0, rng.randint(c - crop + margin, c - margin))) for c, r in zip(at, room)]


def seg_sample(files, rng, crop=160):
    """x (9, crop, crop), mask (1, crop, crop).

    The network is asked about candidates' boxes alone, so most crops hold a lesion:
    whole slices are 98 % background, and the first answer to that is no lesion at all.
    """
    seed = files.pick(rng)
    with files.open(seed) as f:
        hu, mask = f.get_slice("hu"), f.get_slice("mask")
        i = rng.randrange(hu.get_shape()[0])
        whole = mask[i]
        y, x = seg_place(whole, crop, rng)
        box = (slice(y, y + crop), slice(x, x + crop))
        image, target = hu[(i, slice(None), *box)].float(), whole[box].float()
    image = intensity(image, rng, p_blur=.2)
    if rng.random() < .5:
        image, target = image.flip(-1), target.flip(-1)
    if rng.random() < .5:
        image, target = image.flip(-2), target.flip(-2)
    return window(image), target[None]


def coarser(patch, pool):
    """Mean over pool x pool pixels, still int16 HU."""
    if pool == 1:
        return patch
    return F.avg_pool2d(patch.float(), pool).round().short()


def jitter(rect, rng):
    """Half of the boxes a bit off, half as far off as a detector's with an IoU below .5.

    Served boxes are the detector's. Learnt from boxes within a tenth of the truth's,
    SaDT lost a fifth of its right answers on those with an IoU of .1 to .5.
    """
    y1, x1, y2, x2 = rect
    h, w = y2 - y1, x2 - x1
    shift, small, large = (.1, .8, 1.3) if rng.random() < .5 else (.3, .55, 1.7)
    cy = (y1 + y2) / 2 + rng.uniform(-shift, shift) * h
    cx = (x1 + x2) / 2 + rng.uniform(-shift, shift) * w
    h, w = (n * math.exp(rng.uniform(math.log(small), math.log(large))) for n in (h, w))
    return [cy - h / 2, cx - w / 2, cy + h / 2, cx + w / 2]


def patch_sample(patch, rect, rng=None, crop=256):
    """(4, crop, crop) centred on the box, and the box (y1 x1 y2 x2) in it.

    patch (4, S, S) int16 HU at the stage's spacing. Scale stays within 12 %: the texture's own
    scale tells classes apart.
    """
    rect = [float(v) for v in rect]
    if rng is None:
        size = [crop, crop]
    else:
        rect = jitter(rect, rng)
        size = [crop * rng.uniform(.88, 1.13)] * 2
    centre = [(rect[0] + rect[2]) / 2, (rect[1] + rect[3]) / 2]
    lo = [c - s / 2 for c, s in zip(centre, size)]
    x, lo, size = window_resize(patch.float(), lo, size, (crop, crop))
    box = [(rect[i] - lo[i % 2]) * crop / size[i % 2] for i in range(4)]
    if rng is not None:
        # Enhancement of the liver differs between patients; only contrast may count.
        # Phases are not shifted further: they are already apart by their residual
        # motion, and how arterial and venous texture go together (rho) tells classes.
        for p in range(4):
            x[p] = x[p] * rng.uniform(.95, 1.05) + rng.uniform(-15, 15)
            if rng.random() < .1:
                x[p] = blur(x[p], rng.uniform(.4, .7), (0, 1))
        if rng.random() < .5:
            x = x + torch.randn_like(x) * rng.uniform(0, 8)
        if rng.random() < .5:
            x, box = x.transpose(1, 2), [box[1], box[0], box[3], box[2]]
        if rng.random() < .5:
            x, box = x.flip(2), [box[0], crop - box[3], box[2], crop - box[1]]
        if rng.random() < .5:
            x, box = x.flip(1), [crop - box[2], box[1], crop - box[0], box[3]]
    return window(x), box
