"""Golden tensors: tiny seeded networks, every named stage, for the C tests.

One file per case in tests/golden. Keys: `param.KEY` (the folded weights as a bundle
stores them), `input`, for SaDT `mask` (grid), `boxes` (y1 x1 y2 x2 pixels) and, with
mask_input, `pixels`; `stage.NAME` in order of computation; `output.NAME`. All but
the weights are fp32. The file's metadata holds `arch` and `params` (JSON, as in
bundle.yaml). Sizes are odd on purpose: strides give ceil(n / 2), up-sampling crops.
"""
import json
import os

import torch
from safetensors.torch import save_file

from .bundle import PLAN_B, UNET_STRIDES, stored
from .nets import Conv, build, fold
from .nets.layers import Up
from .nets.sadt import grid_mask

TENSOR_LIMIT = 300 * 1024
PLAN_A = {"stem_kernel": [7, 7, 7], "stem_stride": [2, 2, 2], "res_stride": [2, 2, 2],
          "hg_strides": [[2, 2, 2]] * 5}
CASES = {
    "unet3d": ("unet3d", {"widths": [4, 6, 8, 8, 12], "strides": UNET_STRIDES}, [1, 1, 13, 22, 31]),
    "unet25d": ("unet25d", {"slices": 9, "widths": [8, 8, 12, 12, 16]}, [1, 9, 45, 38]),
    # U-Nets of widths that matrix engines take: a GPU serves no others.
    "unet3d_8": ("unet3d", {"widths": [8, 8, 16], "strides": UNET_STRIDES[:3]}, [1, 1, 5, 18, 15]),
    "unet25d_8": ("unet25d", {"slices": 9, "widths": [8, 8, 16], "strides": [1, 2, 2]},
                  [1, 9, 29, 38]),
    "hourglass3d": ("hourglass3d", {"stacks": 2, "dims": [8, 8, 12, 12, 12, 16], "stem": 8,
                                    "modules": [1, 1, 1, 1, 1, 2], **PLAN_B}, [1, 1, 13, 22, 31]),
    # The literal plan of the paper, with two blocks a run.
    "hourglass3d_a": ("hourglass3d", {"stacks": 1, "dims": [8, 8, 8, 12, 12, 16], "stem": 4,
                                      "modules": [2, 2, 1, 1, 1, 2], **PLAN_A},
                      [1, 1, 19, 29, 38]),
    "sadt": ("sadt", {"depth": 18, "width": .125, "output_stride": 8, "D": 8, "K": 5, "classes": 4,
                      "mask_input": False}, [2, 4, 61, 54]),
    "sadt_50": ("sadt", {"depth": 50, "width": .0625, "output_stride": 32, "D": 8, "K": 4,
                         "classes": 2, "mask_input": True}, [2, 4, 61, 54]),
    # Dilated bottlenecks.
    "sadt_50d": ("sadt", {"depth": 50, "width": .0625, "output_stride": 8, "D": 8, "K": 4,
                          "classes": 4, "mask_input": False}, [1, 4, 40, 44]),
}
BOXES = [[9.2, 13.7, 44.1, 39.9], [30.1, 25.2, 33.9, 28.8]]  # the second covers no cell


def seeded(arch, params, seed=7):
    """A network with lively batch norm, so that folding is really tested."""
    net = build(arch, params).eval()
    torch.manual_seed(seed)  # after build: how training initialises is not our business
    with torch.no_grad():
        for name, m in net.named_modules():
            if not isinstance(m, (Conv, Up)):
                continue
            fan_in = m.weight[0].numel()
            m.weight.normal_(0, (2 / fan_in) ** .5)
            m.unit = None
            if m.bn is not None:
                m.bn.weight.uniform_(.6, 1.2)
                m.bn.bias.normal_(0, .2)
                m.bn.running_mean.normal_(0, .2)
                m.bn.running_var.uniform_(.5, 2.)
            if m.bias is not None:
                m.bias.normal_(0, .2)
            if name.endswith((".conv2", ".conv3")) and m.bn is not None:
                m.bn.weight.mul_(.5)
        if arch == "sadt":
            net.encode.codewords.normal_(0, .5)
            net.encode.scale.uniform_(.5, 1.5).div_(params["D"])
            net.fc.weight.normal_(0, net.fc.weight.shape[1] ** -.5)
            net.fc.bias.normal_(0, .2)
    return net


def make(arch, params, size):
    """{key: tensor} of one case. Window floor (-2) outside, like a padded crop."""
    net = build(arch, params, folded=True).eval()
    weights = stored(fold(seeded(arch, params)))
    net.load_state_dict({k: v.float() for k, v in weights.items()}, strict=True)
    torch.manual_seed(11)
    x = torch.randn(size).clamp(-2, 2)
    x[..., :2] = -2.
    out = {"input": x}
    args = [x]
    if arch == "sadt":
        boxes = BOXES[:size[0]]
        stride = params["output_stride"]
        out["boxes"] = torch.tensor(boxes)
        out["mask"] = grid_mask(boxes, size[2:], stride)
        args.append(out["mask"])
        if params["mask_input"]:
            out["pixels"] = grid_mask(boxes, size[2:], 1)
            args.append(out["pixels"])
    net.taps = {}
    with torch.no_grad():
        result = net(*args)
    for name, t in net.taps.items():
        out["stage." + name] = t
    for name, t in result.items():
        out["output." + name] = t
    for key, t in out.items():
        if t.numel() * 4 > TENSOR_LIMIT:
            raise ValueError(f"golden tensor {key} of {arch} is too large: {list(t.shape)}")
        out[key] = t.float().contiguous()
    out.update({"param." + k: v for k, v in weights.items()})
    return out


def write(folder):
    os.makedirs(folder, exist_ok=True)
    for name, (arch, params, size) in CASES.items():
        path = os.path.join(folder, name + ".safetensors")
        # Several threads may add in another order; the files must not depend on it.
        torch.set_num_threads(1)
        save_file(make(arch, params, size), path + ".part",
                  metadata={"arch": arch, "params": json.dumps(params)})
        os.chmod(path + ".part", 0o644)
        os.replace(path + ".part", path)
        print(f"golden {path} {os.path.getsize(path)} bytes", flush=True)


