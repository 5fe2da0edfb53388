"""SaDT (paper, eq. 4-6): dilated ResNet, encoding under the lesion's mask, FC.

params: depth 18 or 50, width, output_stride 8 or 32, D, K, classes, mask_input; in
training also `pool` (encode | gap) and `mask` (false switches delta off), for the
ablations only: a bundle knows neither.

Depth 18 has one stem convolution `stem.conv` (7x7 stride 2, 64 w); depth 50 the deep
stem `stem.conv1` (3x3 stride 2, 64 w), `stem.conv2` (64 w), `stem.conv3` (128 w). Then
max-pool 3x3 stride 2 padding 1 (`pool`), `layer1`..`layer4` with 64 128 256 512 times
w (times 4 in a bottleneck). With output stride 8 layer3 and layer4 keep stride 1;
every 3x3 of layer3 has dilation 2, of layer4's first block 2, of its others 4.
`reduce`: 1x1 to D, ReLU. With mask_input the mask in pixels is a fifth channel.

Stages: `stem` (after the stem's last ReLU), `pool`, `layer{1-4}.{i}` (each block),
`reduce`, `encode.assign` (N, M, K; M = row-major cells), `encode.out` (N, K, D, masked
sums before the norm), `l2` (N, K * D), output `logit`.
The assignment is softmax over k of -s_k |x - c_k|^2, `encode.scale` = s_k (fp32).
`mask` is (N, 1, h, w) on the grid of `reduce`, see `grid_mask`.
"""
import torch
import torch.nn.functional as F
from torch import nn

from .layers import Conv, Net, ResBlock


DROPOUT = .3  # before the FC, in training alone


class Bottleneck(nn.Module):
    last = "conv3"

    def __init__(self, cin, width, stride, dilation, folded):
        super().__init__()
        cout = 4 * width
        self.conv1 = Conv(2, cin, width, 1, folded=folded)
        self.conv2 = Conv(2, width, width, 3, stride, dilation, folded=folded)
        self.conv3 = Conv(2, width, cout, 1, folded=folded)
        self.skip = None
        if cin != cout or stride != 1:
            self.skip = Conv(2, cin, cout, 1, stride, bias=False, relu=False, folded=folded)

    def forward(self, x):
        skip = x if self.skip is None else self.skip(x)
        return self.conv3(self.conv2(self.conv1(x)), plus=skip)


class Stem(nn.Module):
    def __init__(self, depth, cin, width, folded):
        super().__init__()
        if depth == 18:
            self.conv = Conv(2, cin, width, 7, 2, folded=folded)
        else:
            self.conv1 = Conv(2, cin, width, 3, 2, folded=folded)
            self.conv2 = Conv(2, width, width, 3, folded=folded)
            self.conv3 = Conv(2, width, 2 * width, 3, folded=folded)

    def forward(self, x):
        for conv in self.children():
            x = conv(x)
        return x


class Encode(nn.Module):
    def __init__(self, depth, count):
        super().__init__()
        std = (count * depth) ** -.5
        self.codewords = nn.Parameter(torch.empty(count, depth).uniform_(-std, std))
        self.scale = nn.Parameter(torch.empty(count).uniform_(.5, 1.5) / depth)

    def assign(self, x):
        """x (N, M, D) fp32 -> softmax over codewords (N, M, K)."""
        c = self.codewords
        if self.training:
            d2 = (x.square().sum(2, keepdim=True) - 2 * x @ c.t() + c.square().sum(1)).clamp(min=0)
        else:
            d2 = (x.unsqueeze(2) - c).square().sum(3)
        return torch.softmax(-self.scale * d2, 2)

    def forward(self, x, assign, delta):
        """Sum over cells of delta * a_ik * (x_i - c_k): (N, K, D). delta (N, M, 1)."""
        a = assign * delta
        return a.transpose(1, 2) @ x - a.sum(1).unsqueeze(2) * self.codewords

    def folded_tensors(self):
        return {"codewords": self.codewords.detach(), "scale": self.scale.detach()}


class Linear(nn.Module):
    """fc, with the training form's learnable gain (L2-normalised input is small)."""

    def __init__(self, cin, cout, folded, gain=10.):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(cout, cin).uniform_(-1, 1) * cin ** -.5)
        self.bias = nn.Parameter(torch.zeros(cout))
        self.gain = None if folded else nn.Parameter(torch.tensor(gain))

    def forward(self, x):
        if self.gain is not None:
            x = x * self.gain
        return F.linear(x, self.weight, self.bias)

    def folded_tensors(self):
        w = self.weight.detach()
        return {"weight": w if self.gain is None else w * self.gain.detach(),
                "bias": self.bias.detach()}


class SaDT(Net):
    def __init__(self, p, folded=False):
        super().__init__()
        self.settled = False
        self.pool, self.use_mask = p.get("pool", "encode"), p.get("mask", True)
        self.mask_input, depth = p.get("mask_input", False), p["depth"]
        base = int(64 * p["width"])
        self.stem = Stem(depth, 5 if self.mask_input else 4, base, folded)
        cin = base if depth == 18 else 2 * base
        counts = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}[depth]
        dilated = p["output_stride"] == 8
        self.blocks = []
        for n, count in enumerate(counts):
            blocks, width = nn.Sequential(), base << n
            for i in range(count):
                stride = 2 if i == 0 and n > 0 and not (dilated and n >= 2) else 1
                dilation = 1
                if dilated and n >= 2:
                    dilation = 2 if n == 2 or i == 0 else 4
                if depth == 18:
                    blocks.append(ResBlock(2, cin, width, stride, dilation, folded))
                    cin = width
                else:
                    blocks.append(Bottleneck(cin, width, stride, dilation, folded))
                    cin = 4 * width
                self.blocks.append((f"layer{n + 1}", i))
            setattr(self, f"layer{n + 1}", blocks)
        self.reduce = Conv(2, cin, p["D"], 1, folded=folded)
        if self.pool == "encode":
            self.encode = Encode(p["D"], p["K"])
            self.fc = Linear(p["D"] * p["K"], p["classes"], folded)
            # The encoding starts slowly; a masked mean beside it teaches the trunk
            # from the first step. For the loss alone: it is not exported.
            self.aux = None if folded else Linear(p["D"], p["classes"], False, gain=1.)
        else:
            self.fc = Linear(p["D"], p["classes"], folded, gain=1.)

    def settle(self, batches):
        """Batch norm's statistics from `batches` (x, mask), and fixed from here on.

        Small crops of large lesions have other statistics than the crop that is served:
        measured on the trunk, unseen lesions .65 with theirs and .70 with the served crop's.
        """
        norms = [m for m in self.modules() if isinstance(m, nn.BatchNorm2d)]
        for m in norms:
            m.reset_running_stats()
            m.momentum = None  # a plain mean over the batches
        self.train()
        with torch.no_grad():
            for x, mask in batches:
                self(x, mask)
        self.settled = True

    def train(self, mode=True):
        super().train(mode)
        if mode and self.settled:
            for m in self.modules():
                if isinstance(m, nn.BatchNorm2d):
                    m.eval()
        return self

    def forward(self, x, mask, pixels=None):
        """mask on the grid; `pixels` (N, 1, H, W) only with mask_input."""
        if self.mask_input:
            x = torch.cat([x, pixels], 1)
        x = self.tap("stem", self.stem(x))
        x = self.tap("pool", F.max_pool2d(x, 3, 2, 1))
        for layer, i in self.blocks:
            x = self.tap(f"{layer}.{i}", getattr(self, layer)[i](x))
        x = self.tap("reduce", self.reduce(x))
        with torch.autocast(x.device.type, enabled=False):
            f = x.float().flatten(2).transpose(1, 2)  # (N, M, D)
            delta = mask.float().flatten(1).unsqueeze(2)
            if not self.use_mask:
                delta = torch.ones_like(delta)
            if self.pool == "gap":
                return {"logit": self.fc((f * delta).sum(1) / delta.sum(1).clamp(min=1))}
            mean = (f * delta).sum(1) / delta.sum(1).clamp(min=1)
            a = self.tap("encode.assign", self.encode.assign(f))
            e = self.tap("encode.out", self.encode(f, a, delta)).flatten(1)
            e = self.tap("l2", e / e.square().sum(1, keepdim=True).sqrt().clamp(min=1e-12))
            if self.training:
                e = F.dropout(e, DROPOUT)
            if self.training:
                return {"logit": self.fc(e), "aux": self.aux(F.dropout(mean, DROPOUT))}
            return {"logit": self.fc(e)}


def grid_mask(boxes, size, stride=8):
    """delta on the grid: cells with at least half of their pixels inside the box.

    boxes: (N, 4) y1 x1 y2 x2, edge coordinates in pixels of the crop of `size` (H, W).
    A pixel is inside when its centre is. An empty mask gets the cell of the centre.
    """
    h, w = ((n + stride - 1) // stride for n in size)
    out = torch.zeros(len(boxes), 1, h, w)
    for n, (y1, x1, y2, x2) in enumerate(boxes):
        rows = torch.zeros(h * stride)
        cols = torch.zeros(w * stride)
        ys, xs = torch.arange(size[0]) + .5, torch.arange(size[1]) + .5
        rows[:size[0]] = ((ys >= y1) & (ys < y2)).float()
        cols[:size[1]] = ((xs >= x1) & (xs < x2)).float()
        count = rows.view(h, stride).sum(1)[:, None] * cols.view(w, stride).sum(1)[None]
        out[n, 0] = (count * 2 >= stride * stride).float()
        if out[n].sum() == 0:
            cy = int(min(max((y1 + y2) / 2 / stride, 0), h - 1))
            cx = int(min(max((x1 + x2) / 2 / stride, 0), w - 1))
            out[n, 0, cy, cx] = 1
    return out
