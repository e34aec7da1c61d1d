# SPDX-License-Identifier: Apache-2.0
"""What each size costs and what it was published to reach.

Costs are counted on the network itself by the contract tests; they are kept here so that a table
of them needs no torch.
"""

from dataclasses import dataclass
from typing import Final

from model.scales import ScaleName


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a detector of 80 classes, its box branch in 4 groups."""

    parameters: int
    gflops: float
    """Two for each multiplication of the convolutions, for one image of 640 x 640."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One size, in the forms that a weights file may have."""

    unfused: Cost
    fused: Cost
    published_ap: float
    """Average precision on COCO val2017 that the authors report for their weights, in percent."""


# fmt: off
FIGURES: Final[dict[ScaleName, Figures]] = {
    "T": Figures(unfused=Cost(2_036_544, 7.794), fused=Cost(2_001_824, 7.712),
                 published_ap=38.3),
    "S": Figures(unfused=Cost(7_226_192, 26.708), fused=Cost(7_105_872, 26.378),
                 published_ap=46.8),
    "M": Figures(unfused=Cost(20_123_984, 76.799), fused=Cost(19_978_656, 76.308),
                 published_ap=51.4),
    "C": Figures(unfused=Cost(25_498_736, 102.818), fused=Cost(25_288_752, 102.136),
                 published_ap=53.0),
    "E": Figures(unfused=Cost(58_114_416, 191.147), fused=Cost(57_345_904, 188.945),
                 published_ap=55.6),
}
# fmt: on
