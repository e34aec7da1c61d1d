# SPDX-License-Identifier: Apache-2.0
"""The head: from feature maps to boxes and scores.

Each side of a box (left, top, right, bottom of its anchor point) is a distribution over 16
distances, whose expectation is the side in strides (arXiv 2006.04388). Axes: B batch, C classes,
H and W height and width of a map, A anchor points of all levels, P3 first, each row by row.
"""

import math
from typing import Final, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from model.reparam import ConvUnit

BINS: Final = 16
"""Distances a side may take, 0 to 15 strides."""
STRIDES: Final = (8, 16, 32)
"""Pixels per cell of levels P3, P4, P5."""
LEVELS: Final = ("p3", "p4", "p5")

BoxGroups = Literal[1, 4]
"""4 predicts each side from its own quarter of the features (the paper); 1 mixes them."""


class LevelLogits(NamedTuple):
    """What the head says about one level, before any decoding."""

    box: Float[Tensor, "B 64 H W"]
    """Channel 16 * side + bin; sides in the order left, top, right, bottom."""
    score: Float[Tensor, "B C H W"]


Logits = tuple[LevelLogits, LevelLogits, LevelLogits]


class Branch(nn.Module):
    """Two 3x3 convolutions and a linear map."""

    def __init__(self, inputs: int, hidden: int, outputs: int, *, groups: int = 1) -> None:
        super().__init__()
        self.first = ConvUnit(inputs, hidden, 3)
        self.second = ConvUnit(hidden, hidden, 3, groups=groups)
        self.out = nn.Conv2d(hidden, outputs, 1, groups=groups)

    def forward(self, x: Float[Tensor, "B Cin H W"]) -> Float[Tensor, "B Cout H W"]:
        return self.out(self.second(self.first(x)))


class Head(nn.Module):
    """A box branch and a score branch on each of three levels."""

    def __init__(
        self,
        inputs: tuple[int, int, int],
        num_classes: int,
        *,
        class_width: int,
        box_groups: BoxGroups,
    ) -> None:
        super().__init__()
        box_width = max(4 * BINS, -(-(inputs[0] // 4) // 4) * 4)
        self.box = nn.ModuleDict()
        self.score = nn.ModuleDict()
        for level, channels, stride in zip(LEVELS, inputs, STRIDES, strict=True):
            self.box[level] = box = Branch(channels, box_width, 4 * BINS, groups=box_groups)
            self.score[level] = score = Branch(channels, class_width, num_classes)
            _start(box, score, stride)

    def forward(self, features: tuple[Tensor, Tensor, Tensor]) -> Logits:
        p3, p4, p5 = (
            LevelLogits(self.box[level](feature), self.score[level](feature))
            for level, feature in zip(LEVELS, features, strict=True)
        )
        return p3, p4, p5


def decode(logits: Logits) -> Float[Tensor, "B rows A"]:
    """Logits to predictions: left, top, right, bottom in pixels, then one score a class."""
    low, high = decode_corners(logits)
    scores = torch.cat([level.score.flatten(2) for level in logits], dim=2).sigmoid()
    return torch.cat((low, high, scores), dim=1)


def decode_corners(logits: Logits) -> tuple[Float[Tensor, "B 2 A"], Float[Tensor, "B 2 A"]]:
    """Return where boxes begin, left and top, and where they end, right and bottom, in pixels."""
    sides = torch.cat([expected_sides(level.box).flatten(2) for level in logits], dim=2)
    point_xy, stride = anchor_points(logits)
    return (point_xy - sides[:, :2]) * stride, (point_xy + sides[:, 2:]) * stride


def in_float32(logits: Logits) -> Logits:
    """Return them in float32, since half precision is too coarse to decode pixels in."""
    p3, p4, p5 = (LevelLogits(level.box.float(), level.score.float()) for level in logits)
    return p3, p4, p5


def expected_sides(box: Float[Tensor, "B 64 H W"]) -> Float[Tensor, "B 4 H W"]:
    """Return the expected distance of each side, in strides."""
    bins = torch.arange(BINS, dtype=box.dtype, device=box.device)
    distribution = box.unflatten(1, (4, BINS)).softmax(dim=2)
    return (distribution * bins[:, None, None]).sum(dim=2)


def anchor_points(logits: Logits) -> tuple[Float[Tensor, "2 A"], Float[Tensor, " A"]]:
    """Return the centre of each cell, in strides, and the stride it is measured in."""
    points, strides = [], []
    for level, stride in zip(logits, STRIDES, strict=True):
        height, width = level.score.shape[-2:]
        ones = torch.ones(height, width, dtype=level.score.dtype, device=level.score.device)
        y, x = ones.cumsum(0) - 0.5, ones.cumsum(1) - 0.5
        points.append(torch.stack((x.flatten(), y.flatten())))
        strides.append(stride * ones.flatten())
    return torch.cat(points, dim=1), torch.cat(strides)


def start_scores(out: nn.Conv2d, stride: int) -> None:
    """Set the biases of a fresh class layer to expect about 5 objects in an image of 640 pixels."""
    assert out.bias is not None
    expected = 5 / out.out_channels / (640 / stride) ** 2
    nn.init.constant_(out.bias, math.log(expected))


def _start(box: Branch, score: Branch, stride: int) -> None:
    assert box.out.bias is not None
    nn.init.constant_(box.out.bias, 1.0)
    start_scores(score.out, stride)
