# SPDX-License-Identifier: Apache-2.0
"""Blocks of GELAN, the network of YOLOv9 (arXiv 2402.13616).

Axes: B batch, C channels, H and W height and width of the map.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor, nn

from model.reparam import ConvUnit, RepConv
from model.scales import BlockKind, Downsampling, Elan, ElanDepth


class Bottleneck(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = RepConv(channels, channels)
        self.second = ConvUnit(channels, channels, 3)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return x + self.second(self.first(x))


class CspBlock(nn.Module):
    """Refine one narrow view of the input, keep another, and merge both.

    x -+-> left -> chain of bottlenecks -+-> cat -> merge
       +-> right ------------------------+
    """

    def __init__(self, inputs: int, outputs: int, repeats: int) -> None:
        super().__init__()
        hidden = outputs // 2
        self.left = ConvUnit(inputs, hidden, 1)
        self.right = ConvUnit(inputs, hidden, 1)
        self.chain = nn.Sequential(*(Bottleneck(hidden) for _ in range(repeats)))
        self.merge = ConvUnit(2 * hidden, outputs, 1)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B Cout H W"]:
        return self.merge(torch.cat((self.chain(self.left(x)), self.right(x)), dim=1))


class ResidualBlock(nn.Module):
    """A 3x3 between two 1x1s, at half the width, beside the identity (arXiv 1512.03385)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // 2
        self.narrow = ConvUnit(channels, hidden, 1)
        self.square = ConvUnit(hidden, hidden, 3)
        self.widen = ConvUnit(hidden, channels, 1)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return x + self.widen(self.square(self.narrow(x)))


class DarkBlock(nn.Module):
    """A 1x1 to half the width and a 3x3 back, beside the identity (arXiv 1804.02767)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // 2
        self.narrow = ConvUnit(channels, hidden, 1)
        self.square = ConvUnit(hidden, channels, 3)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return x + self.square(self.narrow(x))


class DepthwiseBlock(nn.Module):
    """A 3x3 within each channel and a 1x1 across them, beside the identity (arXiv 1704.04861)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.within = ConvUnit(channels, channels, 3, groups=channels)
        self.across = ConvUnit(channels, channels, 1)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return x + self.across(self.within(x))


class ElanBlock(nn.Module):
    """Split the input, refine one half again and again, and merge every partial result.

    Drawn for two refinements, which all published sizes have:


    x -> split -+-> left -----------------------------+
                +-> right --+-------------------------+
                            +-> first --+-------------+
                                        +-> second ---+-> cat -> merge
    """

    def __init__(
        self,
        inputs: int,
        width: Elan,
        repeats: int,
        *,
        kind: BlockKind = "csp",
        depth: ElanDepth = 2,
    ) -> None:
        """Wire the block.

        Args:
            inputs: Channels of the input.
            width: Channels inside and of the output.
            repeats: Bottlenecks, or blocks of another kind, in each refinement; none leaves a 3x3.
            kind: What refines, before the 3x3 that ends each refinement.
            depth: Refinements in a row.
        """
        super().__init__()
        half = width.hidden // 2
        self.split = ConvUnit(inputs, width.hidden, 1)
        self.order = ("first", "second", "third")[:depth]
        for place in self.order:
            self.add_module(place, _refinement(half, repeats, kind))
        self.merge = ConvUnit(width.hidden + depth * half, width.out, 1)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B Cout H W"]:
        parts = list(self.split(x).chunk(2, dim=1))  # each B, hidden/2, H, W
        for place in self.order:
            parts.append(getattr(self, place)(parts[-1]))
        return self.merge(torch.cat(parts, dim=1))


class AConv(nn.Module):
    """Halve the resolution: average neighbours, then a strided 3x3."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = ConvUnit(inputs, outputs, 3, stride=2)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B Cout Hout Wout"]:
        return self.conv(functional.avg_pool2d(x, 2, stride=1))


class ADown(nn.Module):
    """Halve the resolution: one half of the channels by a strided 3x3, the other by maxima.

    x -> average -+-> strided ----------+-> cat
                  +-> maxima -> pooled -+
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.strided = ConvUnit(inputs // 2, outputs // 2, 3, stride=2)
        self.pooled = ConvUnit(inputs // 2, outputs // 2, 1)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B Cout Hout Wout"]:
        first, second = functional.avg_pool2d(x, 2, stride=1).chunk(2, dim=1)
        maxima = functional.max_pool2d(second, 3, stride=2, padding=1)
        return torch.cat((self.strided(first), self.pooled(maxima)), dim=1)


DOWNSAMPLINGS: dict[Downsampling, type[AConv] | type[ADown]] = {"AConv": AConv, "ADown": ADown}


class PoolPyramid(nn.Module):
    """See each place with three widening neighbourhoods: maxima over 5, 9 and 13 cells a side."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        hidden = outputs // 2
        self.reduce = ConvUnit(inputs, hidden, 1)
        self.merge = ConvUnit(4 * hidden, outputs, 1)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B Cout H W"]:
        views = [self.reduce(x)]
        for _ in range(3):
            views.append(functional.max_pool2d(views[-1], 5, stride=1, padding=2))
        return self.merge(torch.cat(views, dim=1))


class Routes(nn.Module):
    """Turn one map into several, each meant to join another place (the paper's CBLinear)."""

    def __init__(self, inputs: int, outputs: tuple[int, ...]) -> None:
        super().__init__()
        self.outputs = outputs
        self.conv = nn.Conv2d(inputs, sum(outputs), 1)

    def forward(self, x: Float[Tensor, "B C H W"]) -> tuple[Tensor, ...]:
        return self.conv(x).split(self.outputs, dim=1)


def join_routes(x: Float[Tensor, "B C H W"], routed: Iterable[Tensor]) -> Float[Tensor, "B C H W"]:
    """Add maps routed here, each brought to the resolution of `x` (the paper's CBFuse)."""
    for route in routed:
        x = x + functional.interpolate(route, size=x.shape[-2:], mode="nearest")
    return x


def _refinement(channels: int, repeats: int, kind: BlockKind) -> nn.Module:
    mix = ConvUnit(channels, channels, 3)
    if repeats == 0:
        return mix
    return nn.Sequential(OrderedDict({kind: BLOCKS[kind](channels, repeats), "mix": mix}))


def _cross_stage(channels: int, repeats: int) -> nn.Module:
    return CspBlock(channels, channels, repeats)


def _convolution(channels: int) -> nn.Module:
    return ConvUnit(channels, channels, 3)


def _row(block: Callable[[int], nn.Module], channels: int, repeats: int) -> nn.Module:
    return nn.Sequential(*(block(channels) for _ in range(repeats)))


BLOCKS: Final[dict[BlockKind, Callable[[int, int], nn.Module]]] = {
    "csp": _cross_stage,
    "conv": partial(_row, _convolution),
    "res": partial(_row, ResidualBlock),
    "dark": partial(_row, DarkBlock),
    "depthwise": partial(_row, DepthwiseBlock),
}
"""What builds each kind of block: of how many channels, and how many in a row."""
