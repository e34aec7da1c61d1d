# SPDX-License-Identifier: Apache-2.0
"""Each fault that no other test does, done once to a running service; all of them, and often, in
`tests/benchmarks/bench_faults.py`."""

import random
from collections.abc import Iterator
from dataclasses import replace
from statistics import median
from unittest.mock import patch

import pytest

from tests.pipeline.serve.fault_kit import FAULTS, inject
from tests.pipeline.serve.world import NAMES, World, world
from tests.pipeline.telling.broker import MOSQUITTO

RECEIVERS = ("broker gone", "webhook gone", "database gone")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    settings = {"source": {"timeout_s": 1}}  # after which a connection that says nothing is left
    with world(folder, with_broker=MOSQUITTO is not None, **settings) as built:
        yield built


def test_a_frame_s_age_is_that_since_the_camera_sent_it(running: World) -> None:
    """By the camera's own record, frame for frame: neither later than it is nor sooner."""
    running.wait(lambda: len(running.service.seen["door"]) > 50, "frames")
    ages = running.ages("door")[25:]
    assert min(age.captured_s for age in ages) > -0.001
    assert median(age.captured_s for age in ages) < 0.1
    assert median(age.tracked_s for age in ages) < 2.0
    assert all(age.tracked_s > age.captured_s for age in ages)


def test_a_clock_that_is_wrong_by_years_for_a_while_costs_no_event(running: World) -> None:
    """Neither what was kept looks too old, nor is anything told amiss."""
    running.wait(lambda: running.events(), "an event")
    before = {event.id for event in running.events()}
    for name in ("clock ahead by a year", "clock back by a year"):
        with patch.object(running.service._teller._journal, "_tidy_at_s", 0.0):
            inject(running, replace(FAULTS[name], hold_s=(1, 1)), random.Random(7), steady_s=0.4)
    after = {event.id: event for event in running.events()}
    assert before <= after.keys()
    fresh = {event.kind for event in after.values() if event.id not in before}
    assert fresh.isdisjoint({"camera-lost", "disk-full"})


@pytest.mark.parametrize(
    "name",
    ["camera refuses", "camera half-open", "30 % packet loss"],
)
def test_a_camera_is_followed_again_soon_and_the_others_go_on(running: World, name: str) -> None:
    fault = replace(FAULTS[name], hold_s=(0.3, 0.3))
    outcome = inject(running, fault, random.Random(7), steady_s=0.4)
    assert outcome.recovery_s < 10
    assert outcome.others_share > 0.2


def test_no_event_is_lost_while_receivers_and_database_are_gone_at_once(running: World) -> None:
    """And every camera goes on meanwhile."""
    names = [name for name in RECEIVERS if running.broker or name != "broker gone"]
    frames = {name: len(running.service.seen[name]) for name in NAMES}
    for name in names:
        FAULTS[name].begin(running)
    for name in NAMES:
        goal = frames[name] + 10
        running.wait(lambda name=name, goal=goal: len(running.service.seen[name]) > goal, name)
    running.wait(lambda: running.statistics().waiting, "an event that cannot be kept")
    for name in names:
        FAULTS[name].end(running)
    for name in names:
        well = FAULTS[name].well
        assert well is not None
        running.wait(lambda well=well: well(running, 0.0), name)
    running.wait(lambda: not running.missing(), "the telling of all events")
    assert running.heard
    assert running.statistics().lost == 0
