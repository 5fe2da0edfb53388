"""U-Net in 3D (liver3d) and in 2D over slices as channels (seg25d).

Level 0 of the 3D form convolves 1x3x3: its voxels are flat. Stages: `enc{l}`
after its second convolution, `up{l}` (already cropped), `dec{l}`, output `logit`.
`strides[l]` is the stride of enc{l}.c0; `up{l}` undoes `strides[l + 1]`.
"""
import torch
from torch import nn

from .layers import Conv, Net, Up, crop_to


class Level(nn.Module):
    def __init__(self, nd, cin, cout, k, stride, folded):
        super().__init__()
        self.c0 = Conv(nd, cin, cout, k, stride, folded=folded)
        self.c1 = Conv(nd, cout, cout, k, folded=folded)

    def forward(self, x):
        return self.c1(self.c0(x))


class UNet(Net):
    def __init__(self, nd, channels, widths, strides, folded=False):
        super().__init__()
        self.levels = len(widths)
        flat = (1, 3, 3) if nd == 3 else 3
        for lv, width in enumerate(widths):
            k = flat if lv == 0 else 3
            cin = widths[lv - 1] if lv else channels
            setattr(self, f"enc{lv}", Level(nd, cin, width, k, strides[lv], folded))
            if lv + 1 < self.levels:
                setattr(self, f"up{lv}", Up(nd, widths[lv + 1], width, strides[lv + 1], folded))
                setattr(self, f"dec{lv}", Level(nd, 2 * width, width, k, 1, folded))
        self.out = Conv(nd, widths[0], 1, 1, norm=False, relu=False, folded=folded)

    def forward(self, x):
        skips = []
        for lv in range(self.levels):
            x = self.tap(f"enc{lv}", getattr(self, f"enc{lv}")(x))
            skips.append(x)
        for lv in reversed(range(self.levels - 1)):
            up = self.tap(f"up{lv}", crop_to(getattr(self, f"up{lv}")(x), skips[lv]))
            x = self.tap(f"dec{lv}", getattr(self, f"dec{lv}")(torch.cat([skips[lv], up], 1)))
        return {"logit": self.out(x)}
