"""The networks in PyTorch, one class for each `arch` of bundle.yaml.

Each network exists in two forms with one body. The training form has batch norm
after its convolutions; the folded form has a bias instead, and its state_dict
keys are exactly the tensor keys of the bundle. `fold()` turns the first into the
second. Conventions that the C side shares:

- Weights are O I (D) H W, bias and `scale` fp32, the rest in the stored dtype.
- Padding is dilation * (k - 1) / 2 on both sides, zeros; a stride-2 convolution
  gives ceil(n / 2). An up-sampled map is cropped to the size of its skip.
- A transposed convolution (`up{l}`) is stored as a 1x1 convolution: weight
  [prod(stride) * C, I, 1, ..], row ((dz * sy + dy) * sx + dx) * C + c, bias [C];
  depth-to-space, then bias, then ReLU.
- Concatenation is (skip, up): the encoder's channels come first.
- A projection skip (`skip`, and `inter{s}.a`) has a weight only: its folded bias
  sits in the convolution it is added to (`conv2`, or `conv3` in a bottleneck, and
  `inter{s}.b`). Order: convolution + skip + bias, then ReLU.

Stage names are the taps of golden files, written `stage.NAME`: the value after
the ReLU, if the layer has one. They stand in each network's docstring.
"""
from .hourglass import Hourglass3D
from .layers import Conv, Net, fold, recentre, unfold
from .sadt import SaDT
from .unet import UNet

__all__ = ["Conv", "Net", "build", "fold", "recentre", "unfold"]


def build(arch, params, folded=False):
    """The network of a bundle stage; `params` as in bundle.yaml."""
    if arch == "unet3d":
        return UNet(3, 1, params["widths"], params["strides"], folded)
    if arch == "unet25d":
        strides = params.get("strides", [1, 2, 2, 2, 2])
        return UNet(2, params["slices"], params["widths"], [[s, s] for s in strides], folded)
    if arch == "hourglass3d":
        return Hourglass3D(params, folded)
    if arch == "sadt":
        return SaDT(params, folded)
    raise ValueError(f"unknown arch {arch!r}")
