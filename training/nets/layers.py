"""The few layers everything is made of, and the folding of batch norm."""
import torch
import torch.nn.functional as F
from torch import nn

BN_EPS = 1e-5
FOLD_GAIN_MAX = 1e3  # |gamma| / sqrt(var + eps) beyond this is a dead channel blown up


def tuple_of(value, nd):
    return tuple(value) if isinstance(value, (list, tuple)) else (value,) * nd


class Conv(nn.Module):
    """Convolution, then batch norm (or bias when folded), then ReLU if asked.

    norm=False: a plain convolution with bias in both forms (heads).
    bias=False: the bias, if folding makes one, moves to the convolution it is added to.
    `unit`, if set in the training form, scales the output; folding takes it in.
    """

    def __init__(self, nd, cin, cout, k, stride=1, dilation=1, *, norm=True, bias=True,
                 relu=True, folded=False):
        super().__init__()
        self.nd, self.relu = nd, relu
        self.stride, self.dilation = tuple_of(stride, nd), tuple_of(dilation, nd)
        self.k = tuple_of(k, nd)
        self.padding = tuple(d * (n - 1) // 2 for n, d in zip(self.k, self.dilation))
        self.weight = nn.Parameter(torch.empty(cout, cin, *self.k))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        self.bn = self.bias = None
        self.register_buffer("unit", None)
        if norm and not folded:
            self.bn = (nn.BatchNorm3d if nd == 3 else nn.BatchNorm2d)(cout, eps=BN_EPS)
        elif bias:
            self.bias = nn.Parameter(torch.zeros(cout))

    def forward(self, x, plus=None):
        conv = F.conv3d if self.nd == 3 else F.conv2d
        x = conv(x, self.weight, self.bias, self.stride, self.padding, self.dilation)
        if self.bn is not None:
            x = self.bn(x)
        if self.unit is not None:
            x = x * self.unit
        if plus is not None:
            x = x + plus
        return F.relu(x) if self.relu else x


class Up(nn.Module):
    """Transposed convolution with kernel = stride; see nets/__init__ for its layout."""

    def __init__(self, nd, cin, cout, stride, folded=False):
        super().__init__()
        self.nd, self.stride, self.cout, self.unit = nd, tuple_of(stride, nd), cout, None
        n = 1
        for s in self.stride:
            n *= s
        self.weight = nn.Parameter(torch.empty(n * cout, cin, *(1,) * nd))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        self.bn = self.bias = None
        if folded:
            self.bias = nn.Parameter(torch.zeros(cout))
        else:
            self.bn = (nn.BatchNorm3d if nd == 3 else nn.BatchNorm2d)(cout, eps=BN_EPS)

    def forward(self, x):
        nd = self.nd
        w = self.weight.reshape(*self.stride, self.cout, -1)
        w = w.permute(nd + 1, nd, *range(nd))  # (I, C, strides), as torch wants it
        deconv = F.conv_transpose3d if nd == 3 else F.conv_transpose2d
        x = deconv(x, w.contiguous(), self.bias, self.stride)
        if self.bn is not None:
            x = self.bn(x)
        return F.relu(x)


class ResBlock(nn.Module):
    """conv3 BN ReLU conv3 BN + skip, ReLU. The skip is 1x1 when the shape changes."""
    last = "conv2"

    def __init__(self, nd, cin, cout, stride=1, dilation=1, folded=False):
        super().__init__()
        self.conv1 = Conv(nd, cin, cout, 3, stride, dilation, folded=folded)
        self.conv2 = Conv(nd, cout, cout, 3, 1, dilation, folded=folded)
        self.skip = None
        if cin != cout or any(s != 1 for s in tuple_of(stride, nd)):
            self.skip = Conv(nd, cin, cout, 1, stride, bias=False, relu=False, folded=folded)

    def forward(self, x):
        skip = x if self.skip is None else self.skip(x)
        return self.conv2(self.conv1(x), plus=skip)


class Net(nn.Module):
    """A network whose named stages can be tapped: set `taps` to a dict."""
    taps = None

    def tap(self, name, x):
        if self.taps is not None:
            self.taps[name] = x.detach().float().clone()
        return x


def crop_to(x, like):
    for axis in range(2, x.dim()):
        x = x.narrow(axis, 0, like.shape[axis])
    return x


def bn_affine(bn):
    """fp64 (gain, offset) of a batch norm with its running statistics."""
    var = bn.running_var.double().clamp(min=0)
    gain = bn.weight.double() / torch.sqrt(var + bn.eps)
    if gain.abs().max() > FOLD_GAIN_MAX:
        raise ValueError(f"batch norm gain {gain.abs().max():.3g} is beyond {FOLD_GAIN_MAX:g}")
    return gain, bn.bias.double() - bn.running_mean.double() * gain


def fold(net):
    """state_dict of the folded form, fp32 (computed in fp64)."""
    out, moved = {}, {}
    for name, m in net.named_modules():
        if name.split(".")[0] == "aux":  # heads for the loss alone
            continue
        if isinstance(m, (Conv, Up)):
            w = m.weight.detach().double()
            b = m.bias.detach().double() if m.bias is not None else None
            if m.bn is not None:
                gain, b = bn_affine(m.bn)
                rows = gain if isinstance(m, Conv) else gain.repeat(w.shape[0] // len(gain))
                w = w * rows.reshape(-1, *(1,) * (w.dim() - 1))
            if m.unit is not None:
                unit = m.unit.double()
                w, b = w * unit.reshape(-1, *(1,) * (w.dim() - 1)), b * unit.flatten()
            out[name + ".weight"] = w
            parent, _, leaf = name.rpartition(".")
            if leaf == "skip":
                moved[f"{parent}.{net.get_submodule(parent).last}.bias"] = b
            elif leaf == "a" and parent.startswith("inter"):
                moved[f"{parent}.b.bias"] = b
            elif b is not None:
                out[name + ".bias"] = b
        elif hasattr(m, "folded_tensors"):
            out.update({f"{name}.{k}" if name else k: v.double()
                        for k, v in m.folded_tensors().items()})
    for key, b in moved.items():
        if b is not None:
            out[key] = out[key] + b
    return {k: v.float().contiguous() for k, v in out.items()}


def unfold(net, state):
    """Loads what `fold` wrote into the training form; tensors of another shape stay.

    Batch norm then does nothing but add the folded bias: its statistics are 0 and 1
    until `recentre` measures them. Returns how many tensors were taken.
    """
    taken = 0

    def fill(parameter, value):
        nonlocal taken
        if value is not None and value.shape == parameter.shape:
            parameter.copy_(value)
            taken += 1

    with torch.no_grad():
        for name, m in net.named_modules():
            if name.split(".")[0] == "aux":
                continue
            if isinstance(m, (Conv, Up)):
                w, b = state[name + ".weight"].float(), state.get(name + ".bias")
                if m.unit is not None:
                    w = w / m.unit.reshape(-1, *(1,) * (w.dim() - 1))
                    b = b / m.unit.flatten()
                fill(m.weight, w)
                if m.bn is None:
                    if m.bias is not None:
                        fill(m.bias, b)
                    continue
                m.bn.reset_running_stats()
                m.bn.running_var.fill_(1 - m.bn.eps)
                m.bn.weight.fill_(1)
                m.bn.bias.zero_()
                fill(m.bn.bias, b)
            elif hasattr(m, "folded_tensors"):
                gain = getattr(m, "gain", None)
                for key in m.folded_tensors():
                    v = state[f"{name}.{key}"].float()
                    fill(getattr(m, key), v / gain if key == "weight" and gain is not None else v)
    return taken


def recentre(net, batches):
    """Gives batch norm the statistics of `batches` (argument tuples of net) without
    changing what the network computes, so that it can train with batch norm again."""
    norms = [m for m in net.modules() if isinstance(m, (nn.BatchNorm2d, nn.BatchNorm3d))]
    sums = {m: [] for m in norms}

    def see(m, inputs):
        x = inputs[0].float()
        axes = [a for a in range(x.dim()) if a != 1]
        sums[m].append((x.mean(axes), x.square().mean(axes)))

    hooks = [m.register_forward_pre_hook(see) for m in norms]
    net.eval()
    with torch.no_grad():
        for inputs in batches:
            net(*inputs)
    for h in hooks:
        h.remove()
    with torch.no_grad():
        for m in norms:
            mean, square = (torch.stack(v).mean(0) for v in zip(*sums[m]))
            gain, offset = (v.float() for v in bn_affine(m))
            m.running_mean.copy_(mean)
            m.running_var.copy_((square - mean.square()).clamp(min=0))
            m.weight.copy_(gain * (m.running_var + m.eps).sqrt())
            m.bias.copy_(offset + gain * mean)
