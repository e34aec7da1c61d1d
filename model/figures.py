# SPDX-License-Identifier: Apache-2.0
"""What each size costs and what it was published to reach.

Costs are counted on the network itself by the contract tests; they are kept here so that a table
of them needs no torch.
"""

from dataclasses import dataclass
from typing import Final

from model.scales import ScaleName


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """A fused detector of 80 classes, its box branch in 4 groups."""

    parameters: int
    gflops: float
    """Two for each multiplication of the convolutions, for one image of 640 x 640."""
    published_ap: float
    """Average precision on COCO val2017 that the authors report for their weights, in percent."""


FIGURES: Final[dict[ScaleName, Figures]] = {
    "T": Figures(parameters=2_001_824, gflops=7.712, published_ap=38.3),
    "S": Figures(parameters=7_105_872, gflops=26.378, published_ap=46.8),
    "M": Figures(parameters=19_978_656, gflops=76.308, published_ap=51.4),
    "C": Figures(parameters=25_288_752, gflops=102.136, published_ap=53.0),
    "E": Figures(parameters=57_345_904, gflops=188.945, published_ap=55.6),
}
