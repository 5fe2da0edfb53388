"""Stand-in studies in hepar-prepare's layout: noise with bright boxes.

They exist so that loaders, losses and steps can be tested without the phantom;
nothing worth shipping is trained on them.
"""
import os
import random

import torch
from safetensors.torch import save_file


def box_in(rng, shape, lo, hi):
    size = [rng.uniform(lo, hi) for _ in shape]
    at = [rng.uniform(0, n - s) for n, s in zip(shape, size)]
    return at + [a + s for a, s in zip(at, size)]


def fill(x, box, value):
    nd = len(box) // 2
    x[(..., *(slice(int(box[i]), int(box[i + nd]) + 1) for i in range(nd)))] += value


def write(folder, seed, small=True):
    """One study of every kind. `small` shrinks the grids to what a test needs."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    cls = rng.randrange(4)
    noise = lambda *shape: (torch.randn(*shape) * 15 + 60).short()  # noqa: E731
    put = lambda what, t: _save(folder, what, seed, t)              # noqa: E731

    shape = (16, 32, 48) if small else (64, 128, 160)
    hu, mask = noise(4, *shape), torch.zeros(*shape, dtype=torch.uint8)
    b = box_in(rng, shape, 8, 14)
    fill(hu, b, 50)
    fill(mask, b, 15)
    put("liver", {"hu": hu, "mask": mask, "spacing_mm": torch.tensor([4., 3., 3.])})

    shape = (16, 64, 64) if small else (48, 176, 256)
    hu, boxes = noise(4, *shape), [box_in(rng, shape, 5, 10) for _ in range(2)]
    fill(hu, boxes[0], 80)
    put("detect", {"hu": hu, "boxes": torch.tensor(boxes), "kind": torch.tensor([cls, 10]).int(),
                   "class": torch.tensor([cls, -1]).int(),
                   "primary": torch.tensor([1, 0], dtype=torch.uint8),
                   "largest": torch.tensor([1, 0], dtype=torch.uint8),
                   "focal": torch.tensor([1, 1], dtype=torch.uint8),
                   "diameter_mm": torch.tensor([30., 12.]),
                   "spacing_mm": torch.tensor([4., 1., 1.])})

    side = 96 if small else 320
    hu = noise(3, 4, side, side)
    rect = torch.tensor([[side / 2 - 15, side / 2 - 15, side / 2 + 15, side / 2 + 15]] * 3)
    fill(hu[:2, cls % 4], rect[0].tolist(), 60)
    rows = {"rect": rect, "kind": torch.tensor([cls, cls, -1]).int(),
            "class": torch.tensor([cls, cls, -1]).int(),
            "primary": torch.tensor([1, 1, 0], dtype=torch.uint8),
            "rank": torch.tensor([0, 1, 0]).int(), "area_mm2": torch.tensor([700., 600., 300.]),
            "lesion": torch.tensor([0, 0, -1]).int(), "diameter_mm": torch.tensor([30., 30., 0.])}
    put("slices", {"hu": hu, **rows})
    put("candidates", {"hu": hu.clone(), **rows, "score": torch.tensor([.9, .8, .3]),
                       "iou": torch.tensor([.6, .5, 0.]), "iou_any": torch.tensor([.6, .5, 0.])})

    side = 64 if small else 320
    hu, mask = noise(6, 9, side, side), torch.zeros(6, side, side, dtype=torch.uint8)
    b = box_in(rng, (side, side), 10, 20)
    fill(hu, b, 60)
    fill(mask, b, 1)
    put("seg", {"hu": hu, "mask": mask, "phase": torch.tensor([2, 2, 2, 2, 1, 3]).int()})


def _save(folder, what, seed, tensors):
    os.makedirs(os.path.join(folder, what), exist_ok=True)
    save_file(tensors, os.path.join(folder, what, f"{seed:07d}.safetensors"))
