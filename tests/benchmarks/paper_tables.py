# SPDX-License-Identifier: Apache-2.0
"""Costs of the variants that the paper compares, counted here and set beside its own figures.

    python -m tests.benchmarks.paper_tables

Writes docs/paper-tables.md. A row is a size of `model.scales` with some fields changed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch

from model.network import Detector
from model.reparam import fuse
from model.scales import SCALES, BlockKind, ScaleName
from tests.benchmarks.tables import markdown
from tests.model.costs import gflops, num_parameters

PAGE: Final = Path(__file__).parents[2] / "docs" / "paper-tables.md"


@dataclass(frozen=True, slots=True)
class Published:
    """Costs as the paper prints them."""

    parameters_m: float
    gflops: float


BLOCKS: Final[dict[BlockKind, Published]] = {
    "conv": Published(6.2, 23.5),
    "res": Published(5.4, 21.0),
    "dark": Published(5.7, 21.8),
    "csp": Published(5.9, 22.4),
}
"""Table 2: kinds of block in GELAN-S, at ELAN depth 2 and CSP depth 1."""
DEPTHS: Final[dict[tuple[ScaleName, int, int], Published]] = {
    ("S", 2, 1): Published(5.9, 22.4),
    ("S", 2, 2): Published(6.5, 24.4),
    ("S", 3, 1): Published(7.1, 26.3),
    ("S", 2, 3): Published(7.1, 26.4),
    ("M", 2, 1): Published(20.0, 76.3),
    ("M", 2, 2): Published(22.2, 85.1),
    ("M", 3, 1): Published(24.3, 93.5),
    ("M", 2, 3): Published(24.4, 94.0),
    ("C", 1, 1): Published(18.9, 77.5),
    ("C", 2, 1): Published(25.3, 102.1),
    ("C", 2, 2): Published(28.6, 114.4),
    ("C", 3, 1): Published(31.7, 126.8),
    ("C", 2, 3): Published(31.9, 126.7),
}
"""Table 3: size, ELAN depth and CSP depth."""
COSTS: Final = ("parameters, M", "paper", "difference", "GFLOPs", "paper", "difference")

NOTES: Final = """\
# The paper's variants, counted

Made by `python -m tests.benchmarks.paper_tables`; a test checks that it is current. The paper is
arXiv 2402.13616, version 2. Every row is a size of `model/scales.py` with the fields `block`,
`depth` and `repeats` changed, wired and fused by the code that every size goes through, for 80
classes at 640 x 640. GFLOPs are twice the multiplications of the convolutions. The paper counts
pooling and upsampling too, at most 0.01 more, so that a difference of 0.06 is still its rounding.
Accuracy is not reproduced: it takes a training of 500 epochs on COCO for each row.
"""
BLOCK_NOTES: Final = """\
The paper does not define the blocks it names, and its code holds CSP alone. Each stands where the
CSP block does, before the 3x3 that ends a refinement. *conv* is one 3x3. *res* is a 1x1 to half
the width, a 3x3 and a 1x1 back beside the identity, as in ResNet's deeper nets; two 3x3s, as in
its shallower ones, would give {two_squares:.1f} M. *dark* is Darknet's, a 1x1 to half the width
and a 3x3 back beside the identity. *depthwise* is in no table of the paper: it shows that any
block fits.
"""
DEPTH_NOTES: Final = """\
ELAN depth is the number of refinements in a row in each block of the network, CSP depth that of
bottlenecks in each of them. At stride 4 size S has bare convolutions, and two of them whatever
the depth: with three, the row of depths 3 and 1 would cost half a GFLOP more than is printed.
"""


def main() -> None:
    """Write the page anew."""
    PAGE.write_text(render())


def render() -> str:
    """The whole page."""
    parts = [
        NOTES,
        "## Table 2: blocks, in GELAN-S at ELAN depth 2 and CSP depth 1\n",
        _lines(markdown(("block", *COSTS), _block_rows())),
        BLOCK_NOTES.format(two_squares=counted("S", block="conv", repeats=2)[0]),
        "## Table 3: depths\n",
        _lines(markdown(("size", "ELAN depth", "CSP depth", *COSTS), _depth_rows())),
        DEPTH_NOTES,
    ]
    return "\n".join(parts)


@cache
def counted(scale: ScaleName, **changes: Any) -> tuple[float, float]:
    """Millions of parameters and GFLOPs of a size with some of its fields changed, fused."""
    with torch.device("meta"):
        detector = fuse(Detector(replace(SCALES[scale], **changes), 80))
    return num_parameters(detector) / 1e6, gflops(detector)


def _block_rows() -> Iterator[tuple[str, ...]]:
    for kind, published in BLOCKS.items():
        yield (kind, *_cells(counted("S", block=kind, repeats=1), published))
    millions, cost = counted("S", block="depthwise", repeats=1)
    yield ("depthwise", f"{millions:.2f}", "", "", f"{cost:.2f}", "", "")


def _depth_rows() -> Iterator[tuple[str, ...]]:
    for (scale, depth, repeats), published in DEPTHS.items():
        ours = counted(scale, depth=depth, repeats=repeats)
        yield (scale, str(depth), str(repeats), *_cells(ours, published))


def _cells(ours: tuple[float, float], published: Published) -> Iterator[str]:
    for mine, theirs in zip(ours, (published.parameters_m, published.gflops), strict=True):
        yield from (f"{mine:.2f}", f"{theirs:.1f}", f"{mine - theirs:+z.2f}")


def _lines(rows: Iterator[str]) -> str:
    return "".join(f"{row}\n" for row in rows)


if __name__ == "__main__":
    main()
