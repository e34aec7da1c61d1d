# SPDX-License-Identifier: Apache-2.0
"""The sizes of the detector, as data.

Widths and depths follow the published tables of YOLOv9 (arXiv 2402.13616). What a rule derives
is not stored: the inner width of a block is half of `hidden`, a pooling pyramid narrows to half
of `context`, and a downsampling's width follows from its kind and its neighbours.
"""

from dataclasses import dataclass
from typing import Final, Literal

ScaleName = Literal["T", "S", "M", "C", "E"]
Downsampling = Literal["AConv", "ADown"]
BlockKind = Literal["csp", "conv", "res", "dark", "depthwise"]
"""Computational blocks; every released size has `csp`."""
ElanDepth = Literal[1, 2, 3]


@dataclass(frozen=True, slots=True)
class Elan:
    """Widths of one block."""

    out: int
    hidden: int


def even(*widths: int) -> tuple[Elan, ...]:
    """Blocks as wide inside as outside."""
    return tuple(Elan(out=width, hidden=width) for width in widths)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Widths and depths of one size."""

    stem: tuple[int, int]
    """Channels at strides 2 and 4."""
    backbone: tuple[Elan, ...]
    """Blocks at strides 4, 8, 16, 32."""
    neck: tuple[Elan, ...]
    """Blocks in running order: strides 16, 8, then 16, 32."""
    context: int
    """Channels leaving the pooling pyramid, at stride 32."""
    repeats: int
    """Bottlenecks in each cross-stage block, or blocks in a row of another kind: CSP depth."""
    down: Downsampling
    class_width: int
    """Channels of the head's class branch, as released."""
    block: BlockKind = "csp"
    """What refines the features in each block of the network."""
    depth: ElanDepth = 2
    """Refinements in a row in each block of the network: ELAN depth."""
    first: Literal["plain", "block"] = "block"
    """What refines at stride 4: two bare convolutions, or the same as everywhere."""
    passes: Literal[1, 2] = 1
    """Times the image goes through a backbone, each linked to the one before."""


# fmt: off
SCALES: Final[dict[ScaleName, Scale]] = {
    "T": Scale(stem=(16, 32), repeats=3, down="AConv", context=128, first="plain", class_width=80,
               backbone=even(32, 64, 96, 128),
               neck=even(96, 64, 96, 128)),
    "S": Scale(stem=(32, 64), repeats=3, down="AConv", context=256, first="plain", class_width=128,
               backbone=even(64, 128, 192, 256),
               neck=even(192, 128, 192, 256)),
    "M": Scale(stem=(32, 64), repeats=1, down="AConv", context=480, class_width=240,
               backbone=even(128, 240, 360, 480),
               neck=even(360, 240, 360, 480)),
    "C": Scale(stem=(64, 128), repeats=1, down="ADown", context=512, class_width=256,
               backbone=(Elan(256, 128), Elan(512, 256), Elan(512, 512), Elan(512, 512)),
               neck=even(512, 256, 512, 512)),
    "E": Scale(stem=(64, 128), repeats=2, down="ADown", context=512, class_width=256, passes=2,
               backbone=(Elan(256, 128), Elan(512, 256), Elan(1024, 512), Elan(1024, 512)),
               neck=(*even(512, 256, 512), Elan(512, 1024))),
}
# fmt: on
