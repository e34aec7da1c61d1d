# SPDX-License-Identifier: Apache-2.0
"""The variants that the paper compares cost here what they cost there."""

import re

import pytest

from model.scales import ScaleName
from tests.benchmarks import paper_tables
from tests.benchmarks.paper_tables import DEPTHS


def test_the_page_of_variants_is_current() -> None:
    assert paper_tables.PAGE.read_text() == paper_tables.render()


def test_every_variant_costs_what_the_paper_prints() -> None:
    differences = re.findall(r" ([+-]\d+\.\d\d) \|", paper_tables.PAGE.read_text())
    assert len(differences) == 2 * (len(paper_tables.BLOCKS) + len(DEPTHS))
    rounding, uncounted = 0.05, 0.01
    assert max(abs(float(difference)) for difference in differences) <= rounding + uncounted


@pytest.mark.parametrize(("scale", "depth", "repeats"), [("S", 2, 3), ("M", 2, 1), ("C", 2, 1)])
def test_the_rows_the_paper_chose_are_the_released_sizes(
    scale: ScaleName, depth: int, repeats: int
) -> None:
    assert paper_tables.counted(scale) == paper_tables.counted(scale, depth=depth, repeats=repeats)
    assert (scale, depth, repeats) in DEPTHS
