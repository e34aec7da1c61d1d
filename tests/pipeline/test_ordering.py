import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ordering import Ordered


@given(st.permutations(range(30)), st.lists(st.integers(0, 29)))
def test_whatever_the_order_in_each_comes_out_once_and_in_turn(
    arrivals: list[int], again: list[int]
) -> None:
    ordered: Ordered[str] = Ordered()
    out: list[str] = []
    for place, index in enumerate(arrivals):
        ordered.put(index, str(index))
        seen = set(arrivals[: place + 1])
        for repeated in seen & set(again):
            ordered.put(repeated, "a second time")
        out += ordered.due()
        whole = next(n for n in range(31) if n not in seen)
        assert out == [str(n) for n in range(whole)]
        assert ordered.num_held == len(seen) - whole
    assert ordered.num_held == 0


def test_nothing_is_due_before_the_first() -> None:
    ordered: Ordered[str] = Ordered()
    ordered.put(1, "b")
    assert list(ordered.due()) == []
    assert ordered.num_held == 1


def test_what_is_due_may_be_taken_step_by_step() -> None:
    ordered: Ordered[str] = Ordered()
    for index, item in enumerate("abc"):
        ordered.put(index, item)
    due = ordered.due()
    assert next(due) == "a"
    ordered.put(3, "d")
    assert list(due) == ["b", "c", "d"]


@pytest.mark.parametrize("item", [None, 0, ""])
def test_an_item_may_be_anything(item: object) -> None:
    ordered: Ordered[object] = Ordered()
    ordered.put(0, item)
    assert list(ordered.due()) == [item]
