"""CenterNet-3D on a stacked hourglass (paper, detection), strides per axis.

Stages: `stem.conv`, `stem.res`; for stack s from 0 and level l, outermost first
(5..1): `hg{s}.l{l}.up1`, `.low1`, `.low2` (l = 1 only), `.low3`, `.out` (up1 + the
cropped nearest up-sampling of low3); `cnv{s}`; between stacks `inter{s}.sum`
(ReLU(a(x) + b(cnv))) and `inter{s}.res`. Outputs: `hm` (logit), `whd` and `off` (order
z, y, x; sizes in heatmap cells of that axis), of the last stack: a bundle holds no
other head. Keys: `hg{s}.l{l}.{up1,low1,low2,low3}.{i}.{conv1,conv2,skip}.*`,
`head.{hm,whd,off}.{conv1,conv2}.*`. A head: conv3 + bias + ReLU, conv1 + bias.
`low1.0` has the level's stride, `low3` ends with the change back to its own width.
"""
import torch
import torch.nn.functional as F
from torch import nn

from .layers import Conv, Net, ResBlock, crop_to

HEADS = {"hm": 1, "whd": 3, "off": 3}
HM_BIAS = -4.6  # CenterNet's -2.19 is made for 2D: here one cell in 67584 is positive
MEAN_SIZE = (4.4, 9.3, 10.1)  # cells; the size head predicts multiples of it


class Run(nn.Sequential):
    """`count` residual blocks in a row."""

    def __init__(self, count, cin, cout, stride=1, change_last=False, folded=False):
        first = cin if change_last else cout
        blocks = []
        for i in range(count):
            a = cin if i == 0 else first
            b = cout if (not change_last or i == count - 1) else cin
            blocks.append(ResBlock(3, a, b, stride if i == 0 else 1, folded=folded))
        super().__init__(*blocks)


class Level(nn.Module):
    def __init__(self, name, dims, modules, strides, depth, folded):
        super().__init__()
        self.name = name
        self.stride = tuple(strides[0])
        self.up1 = Run(modules[0], dims[0], dims[0], folded=folded)
        self.low1 = Run(modules[0], dims[0], dims[1], self.stride, folded=folded)
        self.low2 = Run(modules[1], dims[1], dims[1], folded=folded) if depth == 1 else None
        self.low3 = Run(modules[0], dims[1], dims[0], change_last=True, folded=folded)


class Hourglass(nn.Module):
    """Levels l5 (outermost) .. l1, as children, so that keys stay flat."""

    def __init__(self, index, p, folded):
        super().__init__()
        self.depth = len(p["hg_strides"])
        for d in range(self.depth, 0, -1):
            i = self.depth - d
            setattr(self, f"l{d}", Level(f"hg{index}.l{d}", p["dims"][i:], p["modules"][i:],
                                         p["hg_strides"][i:], d, folded))

    def forward(self, x, tap, d=None):
        d = self.depth if d is None else d
        lv = getattr(self, f"l{d}")
        up1 = tap(lv.name + ".up1", lv.up1(x))
        if d == 1:
            # bf16 weight gradients of the smallest strided convolution are not to be trusted:
            # in the weights' own type, which is fp32 in training
            with torch.autocast(x.device.type, enabled=False):
                low = tap(lv.name + ".low1", lv.low1(x.to(lv.low1[0].conv1.weight.dtype)))
                low = tap(lv.name + ".low2", lv.low2(low))
                low = tap(lv.name + ".low3", lv.low3(low))
        else:
            low = tap(lv.name + ".low1", lv.low1(x))
            low = self.forward(low, tap, d - 1)
            low = tap(lv.name + ".low3", lv.low3(low))
        low = F.interpolate(low, scale_factor=tuple(float(s) for s in lv.stride), mode="nearest")
        return tap(lv.name + ".out", up1 + crop_to(low, up1).to(up1.dtype))


class Inter(nn.Module):
    def __init__(self, dim, folded):
        super().__init__()
        self.a = Conv(3, dim, dim, 1, bias=False, relu=False, folded=folded)
        self.b = Conv(3, dim, dim, 1, folded=folded)
        self.res = ResBlock(3, dim, dim, folded=folded)


class Head(nn.Module):
    def __init__(self, dim, out, folded):
        super().__init__()
        self.conv1 = Conv(3, dim, dim, 3, norm=False, folded=folded)
        self.conv2 = Conv(3, dim, out, 1, norm=False, relu=False, folded=folded)
        if not folded:
            nn.init.normal_(self.conv2.weight, std=.01)

    def forward(self, x):
        return self.conv2(self.conv1(x))


class Heads(nn.Module):
    def __init__(self, dim, folded):
        super().__init__()
        for name, n in HEADS.items():
            setattr(self, name, Head(dim, n, folded))
        if not folded:
            nn.init.constant_(self.hm.conv2.bias, HM_BIAS)
            nn.init.constant_(self.whd.conv2.bias, 1.)
            self.whd.conv2.unit = torch.tensor(MEAN_SIZE).reshape(1, 3, 1, 1, 1)

    def forward(self, x):
        return {name: getattr(self, name)(x) for name in HEADS}


class Stem(nn.Module):
    def __init__(self, p, folded):
        super().__init__()
        self.conv = Conv(3, 1, p["stem"], p["stem_kernel"], p["stem_stride"], folded=folded)
        self.res = ResBlock(3, p["stem"], p["dims"][0], p["res_stride"], folded=folded)


class Hourglass3D(Net):
    def __init__(self, p, folded=False):
        super().__init__()
        self.stacks = p["stacks"]
        dim = p["dims"][0]
        self.stem = Stem(p, folded)
        for s in range(self.stacks):
            setattr(self, f"hg{s}", Hourglass(s, p, folded))
            setattr(self, f"cnv{s}", Conv(3, dim, dim, 3, folded=folded))
            if s + 1 < self.stacks:
                setattr(self, f"inter{s}", Inter(dim, folded))
        self.head = Heads(dim, folded)
        # Heads of the earlier stacks serve the loss alone and stay out of the bundle.
        self.aux = nn.ModuleList() if folded else \
            nn.ModuleList(Heads(dim, folded) for _ in range(self.stacks - 1))
        self.stride = tuple(a * b for a, b in zip(p["stem_stride"], p["res_stride"]))

    def forward(self, x):
        """Outputs of the last stack; in training a list, one dict for each stack."""
        x = self.tap("stem.conv", self.stem.conv(x))
        x = self.tap("stem.res", self.stem.res(x))
        outs = []
        for s in range(self.stacks):
            cnv = self.tap(f"cnv{s}", getattr(self, f"cnv{s}")(getattr(self, f"hg{s}")(x, self.tap)))
            if s + 1 < self.stacks:
                inter = getattr(self, f"inter{s}")
                x = self.tap(f"inter{s}.sum", inter.b(cnv, plus=inter.a(x)))
                x = self.tap(f"inter{s}.res", inter.res(x))
            if s + 1 == self.stacks:
                outs.append(self.head(cnv))
            elif self.training and len(self.aux):
                outs.append(self.aux[s](cnv))
        return outs if self.training else outs[-1]
