"""Boxes out of heatmaps and their merge across phases (kernels/peaks.h, nms.h).

The C pipeline decides; this twin serves validation during training.
"""
import torch
import torch.nn.functional as F

TIE_ORDER = [2, 1, 3, 0]  # V, A, D, NC


def decode(hm, whd, off, stride, topk=100, score_min=.01):
    """One volume: logits (1, D, H, W) etc. -> scores (n), boxes (n, 6) in voxels."""
    p = torch.sigmoid(hm.float()).clamp(1e-4, 1 - 1e-4)
    peak = F.max_pool3d(p[None], 3, 1, 1)[0]
    p = torch.where(peak == p, p, torch.zeros(()))[0]
    scores, index = p.flatten().sort(descending=True, stable=True)
    keep = scores[:topk] >= score_min
    scores, index = scores[:topk][keep], index[:topk][keep]
    h, w = p.shape[1:]
    cells = torch.stack([index // (h * w), index // w % h, index % w], 1)
    off = off.float().flatten(1).t()[index]
    size = whd.float().flatten(1).t()[index].clamp(min=1e-3)
    r = torch.tensor(stride).float()
    centre = (cells + off) * r
    return scores, torch.cat([centre - size * r / 2, centre + size * r / 2], 1)


def iou(box, boxes):
    lo, hi = torch.maximum(box[:3], boxes[:, :3]), torch.minimum(box[3:], boxes[:, 3:])
    inter = (hi - lo).clamp(min=0).prod(1)
    union = (box[3:] - box[:3]).prod() + (boxes[:, 3:] - boxes[:, :3]).prod(1) - inter
    return inter / union.clamp(min=1e-9)


def merge(per_phase, iou_max=.3, keep=10):
    """per_phase: {phase: (scores, boxes in mm)} -> kept scores (n), boxes (n, 6)."""
    rows = [(-float(s), TIE_ORDER.index(p), i, b)
            for p, (scores, boxes) in per_phase.items()
            for i, (s, b) in enumerate(zip(scores, boxes))]
    rows.sort(key=lambda r: r[:3])
    kept = []
    for row in rows:
        box, ok = row[3], True
        if kept:
            others = torch.stack([k[3] for k in kept])
            c = (box[:3] + box[3:]) / 2
            inside = ((c >= others[:, :3]) & (c <= others[:, 3:])).all(1)
            a, b = (box[3:] - box[:3]).prod(), (others[:, 3:] - others[:, :3]).prod(1)
            near = inside & (torch.maximum(a / b, b / a) < 2)
            ok = not bool(((iou(box, others) >= iou_max) | near).any())
        if ok:
            kept.append(row)
            if len(kept) == keep:
                break
    if not kept:
        return torch.zeros(0), torch.zeros(0, 6)
    return torch.tensor([-k[0] for k in kept]), torch.stack([k[3] for k in kept])
