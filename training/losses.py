"""Losses and targets: CenterNet's heatmap, offset and size; SaDT's weighted focal loss."""
import math

import torch
import torch.nn.functional as F


def gaussian_radius(h, w, overlap=.7):
    """CornerNet's radius with its known root error kept (CenterNet has it too)."""
    b1 = h + w
    c1 = w * h * (1 - overlap) / (1 + overlap)
    r1 = (b1 + math.sqrt(b1 * b1 - 4 * c1)) / 2
    b2 = 2 * (h + w)
    c2 = (1 - overlap) * w * h
    r2 = (b2 + math.sqrt(b2 * b2 - 16 * c2)) / 2
    b3 = -2 * overlap * (h + w)
    c3 = (overlap - 1) * w * h
    r3 = (b3 + math.sqrt(b3 * b3 - 16 * overlap * c3)) / 2
    return min(r1, r2, r3)


def draw_gaussian(heat, cell, size, spacing_mm):
    """Element-wise maximum of one lesion's peak into `heat` (D, H, W).

    std per axis = sigma * gamma, gamma = finest spacing / spacing of the axis; the
    radius has a floor of 1 in plane for lesions of two cells or more.
    """
    radius = int(gaussian_radius(math.ceil(size[1]), math.ceil(size[2])))
    if radius == 0 and min(size[1], size[2]) >= 2:
        radius = 1
    sigma = (2 * radius + 1) / 6
    fine = min(spacing_mm)
    parts, spans = [], []
    for axis in range(3):
        std = sigma * fine / spacing_mm[axis]
        reach = math.ceil(3 * std) if radius else 0
        lo, hi = max(cell[axis] - reach, 0), min(cell[axis] + reach + 1, heat.shape[axis])
        d = torch.arange(lo, hi, dtype=torch.float32) - cell[axis]
        parts.append(torch.exp(-d * d / (2 * std * std)))
        spans.append(slice(lo, hi))
    y = parts[0][:, None, None] * parts[1][None, :, None] * parts[2][None, None]
    view = heat[tuple(spans)]
    torch.maximum(view, y, out=view)


def detector_target(boxes, shape, stride, spacing_mm, spread=True):
    """hm (D, H, W), whd and off (3, D, H, W), weight (D, H, W) of one volume.

    boxes (n, 6): z1 y1 x1 z2 y2 x2 in voxels; shape: of the heatmap; spacing_mm: of a
    voxel. spread: sizes and offsets are also taught around the centre, weighted by
    the peak (a departure from CenterNet: the maximum may sit one cell away).
    """
    hm, weight = torch.zeros(shape), torch.zeros(shape)
    whd, off = torch.ones(3, *shape), torch.zeros(3, *shape)
    cell_mm = [s * r for s, r in zip(spacing_mm, stride)]
    index = torch.stack(torch.meshgrid(*[torch.arange(n) for n in shape], indexing="ij")).float()
    for box in boxes:
        lo = [box[i] / stride[i] for i in range(3)]
        hi = [box[i + 3] / stride[i] for i in range(3)]
        centre = [(a + b) / 2 for a, b in zip(lo, hi)]
        size = [b - a for a, b in zip(lo, hi)]
        cell = [math.floor(c) for c in centre]
        if any(c < 0 or c >= n for c, n in zip(cell, shape)):
            continue
        one = torch.zeros(shape)
        draw_gaussian(one, cell, size, cell_mm)
        torch.maximum(hm, one, out=hm)
        near = torch.where(one >= (.3 if spread else 1.), one, torch.zeros(()))
        take = near > weight
        weight = torch.where(take, near, weight)
        for axis in range(3):
            whd[axis][take] = size[axis]
            off[axis][take] = centre[axis] - index[axis][take]
    return hm, whd, off, weight


def heatmap_loss(logit, target):
    """Penalty-reduced focal loss, alpha 2, beta 4, over the batch's positives."""
    p = torch.sigmoid(logit.float()).clamp(1e-4, 1 - 1e-4)
    pos = target >= 1
    positive = ((1 - p).square() * p.log())[pos].sum()
    negative = ((1 - target).pow(4) * p.square() * (1 - p).log())[~pos].sum()
    return -(positive + negative) / max(int(pos.sum()), 1)


def masked_l1(pred, target, weight, ratio=False):
    """Mean over objects and coordinates. ratio: of the logarithms, for sizes.

    An error relative to the target's size costs less below it than above, and its best
    guess is too small: boxes were a fifth too thin and a tenth too narrow.
    """
    if ratio:
        pred, target = pred.float().clamp(min=.1).log(), target.clamp(min=.1).log()
    d = (pred.float() - target).abs()
    w = weight.unsqueeze(1)
    return (d * w).sum() / (3 * w.sum() + 1e-4)


def focal_loss(logit, label, class_weight, gamma=2.):
    """-w_y (1 - p_y)^gamma log p_y, mean over the batch."""
    logp = F.log_softmax(logit.float(), 1).gather(1, label[:, None]).squeeze(1)
    return -(class_weight[label] * (1 - logp.exp()).pow(gamma) * logp).mean()
