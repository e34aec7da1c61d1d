# SPDX-License-Identifier: Apache-2.0
"""Convolutions with batch normalisation, and their equal without it.

While training, a convolution is followed by a normalisation, and some convolutions are the sum of
a 3x3 and a 1x1 branch (RepVGG, arXiv 2101.03697). At inference each is one biased convolution:
`fuse` returns such a copy. Axes: B batch, C channels, H and W height and width of the map.
"""

import copy
from typing import TypeVar

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


class ConvNorm(nn.Module):
    """Convolution that keeps the resolution, divided by its stride, then normalisation."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False
        )
        self.norm: nn.Module = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B Cout Hout Wout"]:
        return self.norm(self.conv(x))


class ConvUnit(ConvNorm):
    """Convolution, normalisation, SiLU: what the network is made of."""

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B Cout Hout Wout"]:
        return functional.silu(self.norm(self.conv(x)))


class RepConv(nn.Module):
    """3x3 and 1x1 convolutions side by side, summed, then SiLU; `fuse` makes it one ConvUnit."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.square = ConvNorm(inputs, outputs, 3)
        self.point = ConvNorm(inputs, outputs, 1)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B Cout H W"]:
        return functional.silu(self.square(x) + self.point(x))


def fuse(module: M) -> M:
    """Return a copy for inference: normalisations folded, branches merged. Twice is once."""
    fused = copy.deepcopy(module).eval()
    _fuse_children(fused)
    return fused.requires_grad_(requires_grad=False)


def _fuse_children(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, RepConv):
            setattr(module, name, _merged(child))
        elif isinstance(child, ConvNorm):
            if isinstance(child.norm, nn.BatchNorm2d):
                _replace_conv(child, *_folded(child))
        else:
            _fuse_children(child)


def _merged(rep: RepConv) -> ConvUnit:
    """Put the 1x1 kernel at the centre of the 3x3 one."""
    square_weight, square_bias = _folded(rep.square)
    point_weight, point_bias = _folded(rep.point)
    weight = square_weight + functional.pad(point_weight, (1, 1, 1, 1))
    with torch.device("meta"):
        unit = ConvUnit(rep.square.conv.in_channels, rep.square.conv.out_channels, 3)
    _replace_conv(unit, weight, square_bias + point_bias)
    return unit.eval()


def _folded(unit: ConvNorm) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one convolution that equals this one and its normalisation."""
    norm = unit.norm
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_var is not None
    assert norm.running_mean is not None
    gain = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
    weight = unit.conv.weight.detach() * gain[:, None, None, None]
    return weight, norm.bias.detach() - norm.running_mean * gain


def _replace_conv(unit: ConvNorm, weight: Tensor, bias: Tensor) -> None:
    unit.conv.weight = nn.Parameter(weight)
    unit.conv.bias = nn.Parameter(bias)
    unit.norm = nn.Identity()
