# SPDX-License-Identifier: Apache-2.0
"""Which requests make a batch, and when it goes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.cuda.collecting import Batch, Collector

WINDOW_NS = 4000


def make_collector(
    sizes: tuple[int, ...] = (1, 2, 4, 8), *, fixed: int = 4, max_bytes: int = 1000
) -> Collector[int]:
    return Collector(sizes, window_ns=WINDOW_NS, fixed=fixed, max_bytes=max_bytes)


def put(
    collector: Collector[int],
    item: int,
    *,
    looks: int = 1,
    num_bytes: int = 10,
    fixed: bool = False,
    now_ns: int = 0,
) -> None:
    collector.put(item, looks=looks, num_bytes=num_bytes, fixed=fixed, now_ns=now_ns)


def test_an_idle_device_gets_a_frame_at_once() -> None:
    collector = make_collector()
    put(collector, 7, now_ns=100)
    assert collector.due_ns(num_running=0) == 100
    assert collector.take(100, num_running=0, idle_slots=2) == Batch((7,), 1)
    assert collector.due_ns(num_running=0) is None


def test_a_busy_one_waits_for_a_full_batch() -> None:
    collector = make_collector()
    for item in range(7):
        put(collector, item, now_ns=100)
        assert collector.take(100, num_running=1, idle_slots=1) is None
    put(collector, 7, now_ns=100)
    assert collector.take(100, num_running=1, idle_slots=1) == Batch(tuple(range(8)), 8)


def test_a_busy_one_waits_for_the_window_of_the_first() -> None:
    collector = make_collector()
    put(collector, 0, now_ns=100)
    put(collector, 1, now_ns=900)
    due_ns = 100 + WINDOW_NS
    assert collector.due_ns(num_running=1) == due_ns
    assert collector.take(due_ns - 1, num_running=1, idle_slots=1) is None
    assert collector.take(due_ns, num_running=1, idle_slots=1) == Batch((0, 1), 2)


def test_without_a_slot_more_are_collected() -> None:
    collector = make_collector()
    for item in range(9):
        put(collector, item)
        assert collector.take(10**9, num_running=2, idle_slots=0) is None
    assert collector.take(0, num_running=1, idle_slots=1) == Batch(tuple(range(8)), 8)
    assert len(collector) == 1


@pytest.mark.parametrize(("looks", "size"), [(1, 1), (2, 2), (3, 4), (5, 8), (8, 8)])
def test_a_batch_is_padded_to_the_next_captured_size(looks: int, size: int) -> None:
    collector = make_collector()
    for item in range(looks):
        put(collector, item)
    batch = collector.take(0, num_running=0, idle_slots=1)
    assert batch is not None
    assert batch.size == size


def test_files_go_in_batches_of_one_size() -> None:
    collector = make_collector()
    sizes = []
    for count in (1, 3, 4):
        for item in range(count):
            put(collector, item, fixed=True)
        batch = collector.take(0, num_running=0, idle_slots=1)
        assert batch is not None
        sizes.append((len(batch.items), batch.size))
    assert sizes == [(1, 4), (3, 4), (4, 4)]


def test_files_and_cameras_do_not_mix() -> None:
    collector = make_collector()
    put(collector, 0, fixed=True, now_ns=0)
    put(collector, 1, now_ns=1)
    put(collector, 2, fixed=True, now_ns=2)
    put(collector, 3, now_ns=3)
    assert collector.take(9, num_running=0, idle_slots=1) == Batch((0, 2), 4)
    assert collector.take(9, num_running=0, idle_slots=1) == Batch((1, 3), 2)


def test_a_flood_of_cameras_keeps_no_file_waiting() -> None:
    collector = make_collector()
    put(collector, -1, fixed=True, now_ns=0)
    now_ns, batches = 0, []
    while -1 not in batches:
        for item in range(8):
            put(collector, item, now_ns=now_ns)
        batch = collector.take(now_ns, num_running=1, idle_slots=1)
        assert batch is not None
        batches += batch.items
        now_ns += 100
    assert now_ns <= WINDOW_NS + 200


def test_looks_of_a_frame_stay_together() -> None:
    collector = make_collector()
    for item in range(3):
        put(collector, item, looks=3)
    assert collector.take(0, num_running=1, idle_slots=1) == Batch((0, 1), 8)


def test_a_batch_that_holds_no_other_like_its_last_is_full() -> None:
    collector = make_collector()
    put(collector, 0, looks=3)
    assert collector.take(0, num_running=1, idle_slots=1) is None
    put(collector, 1, looks=3)
    assert collector.take(0, num_running=1, idle_slots=1) == Batch((0, 1), 8)


def test_the_arena_bounds_a_batch() -> None:
    collector = make_collector(max_bytes=25)
    for item in range(4):
        put(collector, item, num_bytes=10)
    assert collector.take(0, num_running=1, idle_slots=1) == Batch((0, 1), 2)


def test_there_is_room_for_what_would_go_with_all_that_wait() -> None:
    collector = make_collector(max_bytes=100)
    put(collector, 0, looks=5, num_bytes=60)
    assert collector.has_room(3, 40, fixed=False)
    assert not collector.has_room(4, 40, fixed=False)
    assert not collector.has_room(3, 41, fixed=False)
    assert collector.has_room(4, 100, fixed=True)
    assert not collector.has_room(5, 100, fixed=True)


def test_what_can_never_go_is_refused() -> None:
    collector = make_collector(fixed=2)
    with pytest.raises(AssertionError, match="3 looks do not fit into 2"):
        put(collector, 0, looks=3, fixed=True)
    with pytest.raises(AssertionError, match="1001 bytes do not fit into 1000"):
        put(collector, 0, num_bytes=1001)


def test_what_waits_can_be_given_up() -> None:
    collector = make_collector()
    put(collector, 0)
    put(collector, 1, fixed=True)
    assert sorted(collector.clear()) == [0, 1]
    assert not collector
    assert collector.take(10**9, num_running=0, idle_slots=1) is None


Puts = st.tuples(st.integers(1, 4), st.integers(0, 40), st.booleans())
Steps = st.lists(st.one_of(Puts, st.tuples(st.integers(0, 2), st.integers(0, 2))), max_size=40)


@settings(max_examples=100, deadline=None)
@given(Steps)
def test_every_item_is_taken_once(steps: list[tuple[int, ...]]) -> None:
    """And each batch keeps its bounds, whatever comes in which order."""
    collector = make_collector(max_bytes=100)
    given: dict[int, tuple[int, ...]] = {}
    taken: list[int] = []
    for now_ns, step in enumerate(steps):
        if len(step) == 3:
            given[now_ns] = step
            looks, num_bytes, fixed = step
            put(
                collector,
                now_ns,
                looks=looks,
                num_bytes=num_bytes,
                fixed=bool(fixed),
                now_ns=now_ns,
            )
        else:
            batch = collector.take(now_ns, num_running=step[0], idle_slots=step[1])
            taken += _checked(batch, given)
    while (batch := collector.take(10**9, num_running=0, idle_slots=1)) is not None:
        taken += _checked(batch, given)
    assert sorted(taken) == sorted(given)
    for fixed in (False, True):
        alike = [item for item in taken if bool(given[item][2]) == fixed]
        assert alike == sorted(alike)


def _checked(batch: Batch[int] | None, given: dict[int, tuple[int, ...]]) -> list[int]:
    """The items of a batch that keeps its bounds."""
    if batch is None:
        return []
    looks, num_bytes, fixed = zip(*(given[item] for item in batch.items), strict=True)
    assert sum(looks) <= batch.size
    assert sum(num_bytes) <= 100
    assert len(set(fixed)) == 1
    assert batch.size == 4 if fixed[0] else batch.size < 2 * sum(looks)
    return list(batch.items)
