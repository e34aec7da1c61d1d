# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is, by hand."""

from collections import Counter

import pytest

from pipeline.cameras import Priority
from pipeline.fairness import ALLOWANCE, FairQueue


def served(queue: FairQueue[str], turns: int) -> Counter[str]:
    return Counter(queue.take() for _ in range(turns))


def fill(queue: FairQueue[str], stream: str, count: int) -> None:
    for _ in range(count):
        queue.put(stream, stream)


def test_streams_take_turns_whoever_came_first() -> None:
    queue = FairQueue[tuple[str, int]]()
    for number in range(3):
        queue.put("a", ("a", number))
    for number in range(3):
        queue.put("b", ("b", number))
    taken = [queue.take() for _ in range(6)]
    assert taken == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert not queue


def test_a_stream_that_had_nothing_for_a_while_gets_its_turns_back() -> None:
    queue = FairQueue[str]()
    fill(queue, "a", 100)
    fill(queue, "b", 10)
    assert served(queue, 40) == {"a": 30, "b": 10}
    fill(queue, "b", 60)
    assert served(queue, 20) == {"b": 20}
    assert served(queue, 20) == {"a": 10, "b": 10}


def test_no_stream_gets_back_more_than_the_allowance() -> None:
    queue = FairQueue[str]()
    fill(queue, "a", 1000)
    fill(queue, "b", 1)
    served(queue, 501)
    fill(queue, "b", 1000)
    assert served(queue, ALLOWANCE) == {"b": ALLOWANCE}
    assert served(queue, 100)["a"] == pytest.approx(50, abs=1)


def test_a_new_stream_begins_level_with_the_others() -> None:
    queue = FairQueue[str]()
    fill(queue, "a", 500)
    served(queue, 400)
    fill(queue, "new", 100)
    assert served(queue, 100)["new"] == pytest.approx(50, abs=1)


def test_what_is_put_back_comes_before_the_others_of_its_stream() -> None:
    queue = FairQueue[int]()
    queue.put("a", 2)
    queue.put_back("a", 1)
    assert [queue.take(), queue.take()] == [1, 2]


def test_what_is_removed_takes_no_turn_and_leaves_the_order() -> None:
    queue = FairQueue[tuple[str, int]]()
    for number in range(4):
        queue.put("a", ("a", number))
        queue.put("b", ("b", number))
    assert sorted(queue.remove(lambda item: item[1] < 2 or item[0] == "b")) == [
        *(("a", number) for number in range(2)),
        *(("b", number) for number in range(4)),
    ]
    assert list(queue) == [("a", 2), ("a", 3)]
    assert [queue.take(), queue.take()] == [("a", 2), ("a", 3)]
    with pytest.raises(IndexError, match="nothing waits"):
        queue.take()


def test_streams_that_ended_are_forgotten() -> None:
    queue = FairQueue[str]()
    for number in range(1000):
        fill(queue, f"photo-{number}", 1)
        queue.take()
        fill(queue, "film", 1)
        queue.take()
    assert len(queue._had) < 3 * ALLOWANCE


def test_under_load_a_stream_of_high_priority_gets_two_turns_for_one_and_a_low_one_half() -> None:
    queue = FairQueue[str]()
    priorities: dict[str, Priority] = {"gate": "high", "yard": "normal", "roof": "low"}
    for name, priority in priorities.items():
        for _ in range(200):
            queue.put(name, name, priority)
    assert served(queue, 140) == {"gate": 80, "yard": 40, "roof": 20}
