# SPDX-License-Identifier: Apache-2.0
"""Which frames are let by where fewer are wanted than a camera sends."""

import random

import pytest

from pipeline.decoding.pace import Pace

MS = 1_000_000


def let_by(max_fps: float, times_ms: list[float]) -> list[int]:
    pace = Pace(max_fps)
    return [n for n, at in enumerate(times_ms) if pace.lets_by(round(at * MS), anew=False)]


@pytest.mark.parametrize(
    ("rate", "max_fps", "count"), [(25, 25, 250), (25, 30, 250), (25, 10, 100), (30, 15, 125),
                                   (25, 0.5, 5), (25, 20, 200)]
)  # fmt: skip
def test_the_rate_is_held_whatever_the_jitter(rate: int, max_fps: float, count: int) -> None:
    jitter = random.Random(7)
    period_ms = 1000 / rate
    times = [n * period_ms + jitter.uniform(-0.2, 0.2) * period_ms for n in range(250)]
    assert len(let_by(max_fps, times)) == pytest.approx(count, abs=3)
    steady = [n * period_ms for n in range(250)]
    assert len(let_by(max_fps, steady)) == pytest.approx(count, abs=1)


def test_every_other_frame_is_every_other_frame() -> None:
    assert let_by(12.5, [n * 40.0 for n in range(10)]) == [0, 2, 4, 6, 8]


def test_after_a_gap_or_a_step_back_no_burst_follows() -> None:
    times = [0.0, 40, 80, *(5000 + n * 40.0 for n in range(6)), *(n * 40.0 for n in range(4))]
    assert let_by(12.5, times) == [0, 2, 3, 5, 7, 9, 11]


def test_a_new_beginning_is_looked_at() -> None:
    pace = Pace(1)
    assert pace.lets_by(0, anew=False)
    assert not pace.lets_by(40 * MS, anew=False)
    assert pace.lets_by(80 * MS, anew=True)
