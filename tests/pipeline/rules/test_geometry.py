# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.rules.geometry import Area, fault_of_polygon, overlap, pairs
from tests.pipeline.rules.exact import is_inside

SQUARE = [(0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8)]
HORSESHOE = [(0, 0), (1, 0), (1, 1), (0.75, 1), (0.75, 0.25), (0.25, 0.25), (0.25, 1), (0, 1)]


@pytest.mark.parametrize("turned", [1, -1])
def test_inside_edges_and_corners_belong_to_an_area(turned):
    points = {
        (0.5, 0.5): True,
        (0.2, 0.5): True,
        (0.5, 0.8): True,
        (0.8, 0.8): True,
        (0.2, 0.2): True,
        (0.81, 0.5): False,
        (0.5, 0.1999): False,
        (0.9, 0.8): False,
        (0.1, 0.2): False,
    }
    inside = Area(SQUARE[::turned]).contains(np.array(list(points)))
    assert inside.tolist() == list(points.values())


def test_the_hollow_of_a_horseshoe_is_outside():
    points = np.array([[0.5, 0.5], [0.1, 0.9], [0.9, 0.9], [0.5, 0.1], [0.5, 1.0]])
    assert Area(HORSESHOE).contains(points).tolist() == [False, True, True, True, False]


def test_nobody_is_in_no_area():
    assert Area(SQUARE).contains(np.zeros((0, 2))).tolist() == []


corners = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=3, max_size=7)


@given(corners)
def test_any_polygon_holds_what_exact_arithmetic_says(corners):
    if fault_of_polygon([(x / 8, y / 8) for x, y in corners]) is not None:
        return
    places = [(x, y) for x in range(9) for y in range(9)]
    inside = Area([(x / 8, y / 8) for x, y in corners]).contains(np.array(places) / 8)
    assert inside.tolist() == [is_inside(corners, place) for place in places]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=20))
def test_two_halves_hold_what_the_whole_holds(points):
    places = np.array(points, np.float64).reshape(-1, 2)
    left = Area([(0, 0), (0.5, 0), (0.3, 1), (0, 1)]).contains(places)
    right = Area([(0.5, 0), (1, 0), (1, 1), (0.3, 1)]).contains(places)
    assert (left | right).all()


@pytest.mark.parametrize(
    ("corners", "fault"),
    [
        (SQUARE, None),
        (HORSESHOE, None),
        ([(0, 0), (1, 1), (1, 0), (0, 1)], "crosses itself: side 1 meets side 3"),
        ([(0, 0), (1, 0), (1, 0), (0, 1)], "points 2 and 3 are the same"),
        ([(0, 0), (1, 0), (1, 1), (0, 0)], "points 4 and 1 are the same"),
        ([(0, 0), (0.5, 0.5), (1, 1)], "crosses itself"),
        ([(0, 0), (0.5, 0), (0.2, 0), (0.5, 1)], "crosses itself: side 1 meets side 2"),
        ([(0, 0), (1, 0), (1, 1), (0.5, 0), (0, 1)], "crosses itself: side 1 meets side 3"),
        ([(0, 0), (1e-4, 0), (0, 1e-4)], "no area"),
    ],
)
def test_a_polygon_that_is_no_zone_says_why(corners, fault):
    found = fault_of_polygon(corners)
    assert found is None if fault is None else found is not None and fault in found


def test_boxes_are_paired_once_and_the_nearest_first():
    first = [(0, 0, 1, 1), (0.1, 0, 1.1, 1)]
    second = [(0.09, 0, 1.09, 1), (5, 5, 6, 6), (0.01, 0, 1.01, 1)]
    assert pairs(first, second, 0.5) == [(0, 2), (1, 0)]
    assert pairs(first, [], 0.5) == []


def test_boxes_overlap_by_intersection_over_union():
    assert overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 1, 1), (1, 0, 2, 1)) == 0
