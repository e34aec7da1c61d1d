# SPDX-License-Identifier: Apache-2.0
"""Which time counts for what has grown too old."""

import pytest

from pipeline.telling.age import BELIEVED_AFTER_S, AgeClock

DAY_S = 86_400.0


class Clocks:
    """The clocks of a machine."""

    def __init__(self) -> None:
        self.wall_s, self.passed_s = 1.7e9, 50.0

    def pass_by(self, seconds: float) -> None:
        self.wall_s += seconds
        self.passed_s += seconds


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    clocks = Clocks()
    monkeypatch.setattr("time.time", lambda: clocks.wall_s)
    monkeypatch.setattr("time.monotonic", lambda: clocks.passed_s)
    return clocks


def test_it_is_the_wall_clock_while_nobody_sets_that(clocks: Clocks) -> None:
    clock = AgeClock(None)
    for seconds in (1, 30, 40 * DAY_S):
        clocks.pass_by(seconds)
        assert clock.now() == clocks.wall_s


def test_a_leap_forward_that_is_taken_back_makes_nothing_old(clocks: Clocks) -> None:
    clock = AgeClock(None)
    clocks.wall_s += 400 * DAY_S
    clocks.pass_by(100)
    assert clock.now() == 1.7e9 + 100
    clocks.wall_s -= 400 * DAY_S
    clocks.pass_by(BELIEVED_AFTER_S)
    assert clock.now() == clocks.wall_s == 1.7e9 + 100 + BELIEVED_AFTER_S


def test_a_leap_forward_that_lasts_is_believed(clocks: Clocks) -> None:
    clock = AgeClock(None)
    clocks.wall_s += 400 * DAY_S
    clock.now()
    clocks.pass_by(BELIEVED_AFTER_S - 1)
    assert clock.now() < clocks.wall_s
    clocks.pass_by(1)
    assert clock.now() == clocks.wall_s
    clocks.pass_by(5)
    assert clock.now() == clocks.wall_s


def test_a_small_step_counts_at_once(clocks: Clocks) -> None:
    clock = AgeClock(None)
    for step_s in (20, -30):
        clocks.wall_s += step_s
        assert clock.now() == clocks.wall_s
    assert clock.take_leap() == 0


def test_a_leap_back_is_believed_as_late_as_one_forward(clocks: Clocks) -> None:
    clock = AgeClock(None)
    clocks.wall_s -= 10 * DAY_S
    assert clock.now() == 1.7e9
    clocks.pass_by(BELIEVED_AFTER_S)
    assert clock.now() == clocks.wall_s
    assert clock.take_leap() == pytest.approx(-10 * DAY_S)


def test_a_clock_far_ahead_of_what_is_kept_is_believed_after_an_hour_only(clocks: Clocks) -> None:
    """As at a start without a battery, or after months in a drawer."""
    clock = AgeClock(1.7e9 - 400 * DAY_S)
    assert clock.now() == 1.7e9 - 400 * DAY_S
    clocks.pass_by(BELIEVED_AFTER_S)
    assert clock.now() == clocks.wall_s
    assert clock.take_leap() == pytest.approx(400 * DAY_S)
    assert clock.take_leap() == 0
