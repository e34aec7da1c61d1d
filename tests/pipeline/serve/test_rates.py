# SPDX-License-Identifier: Apache-2.0
"""Rates from samples of counters."""

import pytest

from pipeline.metrics import COUNTERS
from pipeline.serve import rates as rates_module
from pipeline.serve.rates import Rates
from pipeline.totals import Counted


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now_s = [1000.0]
    monkeypatch.setattr(rates_module.time, "monotonic", lambda: now_s[0])
    return now_s


def counts(**given: int) -> Counted:
    return {name: given.get(name, 0) for name in COUNTERS}


def test_rates_are_over_the_last_ten_seconds(clock: list[float]) -> None:
    rates = Rates()
    for second in range(31):
        fast = 25 * second if second <= 20 else 500 + 10 * (second - 20)
        clock[0] = 1000.0 + second
        assert rates.sample(lambda fast=fast: {"yard": counts(decoded=fast, tracked=fast // 5)})
    rate = rates.latest["yard"]
    assert (rate.decoded, rate.tracked, rate.lost_share) == (10, 2, 0)


def test_a_sample_is_taken_once_a_second(clock: list[float]) -> None:
    rates, reads = Rates(), []

    def read() -> dict[str, Counted]:
        reads.append(clock[0])
        return {}

    taken = [rates.sample(read)]
    for _ in range(10):
        clock[0] += 0.25
        taken.append(rates.sample(read))
    assert taken == [True, *[False, False, False, True] * 2, False, False]
    assert reads == [1000, 1001, 1002]


def test_what_was_given_up_is_a_share_of_what_came(clock: list[float]) -> None:
    rates = Rates()
    rates.sample(lambda: {"yard": counts(decoded=100), "gone": counts(decoded=5)})
    clock[0] += 2
    now = counts(decoded=160, dropped_late=10, dropped_overload=10, late_packets=20)
    rates.sample(lambda: {"yard": now, "new": counts(decoded=50)})
    assert rates.latest["yard"].lost_share == pytest.approx(40 / 100)
    assert rates.latest.keys() == {"yard"}  # of a camera seen once there is no rate
