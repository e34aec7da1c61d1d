from pathlib import Path

import pytest

from pipeline.metrics import COUNTERS, DROPPED, SKIPPED, CounterTable


def test_counters_start_at_zero_and_count() -> None:
    counters = CounterTable(["yard"])["yard"]
    assert counters.as_dict() == dict.fromkeys(COUNTERS, 0)
    counters.add("decoded")
    counters.add("decoded", 4)
    assert counters["decoded"] == 5
    assert counters.as_dict()["decoded"] == 5


def test_no_counter_disturbs_another() -> None:
    table = CounterTable(["yard", "gate", "door"])
    for number, name in enumerate(COUNTERS):
        table["gate"].add(name, number + 1)
    assert list(table["gate"].as_dict().values()) == list(range(1, len(COUNTERS) + 1))
    assert not any(table["yard"].as_dict().values())
    assert not any(table["door"].as_dict().values())
    assert len(list(table.values())) == 3


def test_a_table_may_be_empty() -> None:
    assert list(CounterTable([]).values()) == []


def test_every_decoded_frame_is_tracked_skipped_dropped_or_on_its_way() -> None:
    counters = CounterTable(["yard"])["yard"]
    counters.add("decoded", 21)
    counters.add("tracked", 9)
    for name in SKIPPED:
        counters.add(name)
    for name in DROPPED:
        counters.add(name)
    assert counters.num_dropped == len(DROPPED) == 5
    assert counters.num_skipped == len(SKIPPED) == 4
    assert counters.num_settled == 9 + 4 + 5
    assert counters.num_in_flight == 3


def test_packets_and_reconnects_are_no_frames() -> None:
    counters = CounterTable(["yard"])["yard"]
    for name in ("packets", "late_packets", "undecodable", "reconnects", "pictures"):
        counters.add(name)  # type: ignore[arg-type]
    assert (counters.num_dropped, counters.num_in_flight) == (0, 0)


def test_what_nobody_counts_cannot_be_counted() -> None:
    with pytest.raises(ValueError, match="not in tuple"):
        CounterTable(["yard"])["yard"].add("sheep")  # type: ignore[arg-type]


def test_a_thousand_streams_need_few_descriptors() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    table = CounterTable([str(number) for number in range(1000)])
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2
    table["999"].add("decoded")
    assert table["999"]["decoded"] == 1
