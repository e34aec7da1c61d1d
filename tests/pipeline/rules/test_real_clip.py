# SPDX-License-Identifier: Apache-2.0
"""Tracks of real video: what a person sees in the clip is what is told.

The tracks are those of the first 200 frames of `one-by-one-person-detection.mp4` (768x432 at 10
frames/s) by YOLOv9-T, recorded with

    sightline run one-by-one-person-detection.mp4 --model t.safetensors
        --set source.limit=200 --set model.image_size=320 --set 'classes=[person]'

A person comes in at the lower edge, stands in the middle for ten seconds and goes out to the right.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline.events import Event
from pipeline.rules.config import RulesConfig
from pipeline.rules.engine import Rules
from pipeline.tracking.tracks import Tracks

RECORDED = Path(__file__).parent / "recorded/one-person.mot.txt"
NUM_FRAMES, FRAMES_PER_S, PICTURE_HW = 200, 10, (432, 768)
TREE = {
    "zones": {"middle": [[0.56, 0.5], [0.7, 0.5], [0.7, 1.0], [0.56, 1.0]]},
    "lines": {"right": [[0.75, 0.0], [0.75, 1.0]], "left": [[0.25, 0.0], [0.25, 1.0]]},
    "rules": [
        {"name": "came", "kind": "enter", "zone": "middle"},
        {"name": "stayed", "kind": "dwell", "zone": "middle", "for_s": 3},
        {"name": "stood", "kind": "stationary", "for_s": 3},
        {"name": "left", "kind": "exit", "zone": "middle"},
        {"name": "out to the right", "kind": "line", "line": "right"},
        {"name": "out to the left", "kind": "line", "line": "left"},
    ],
}


@pytest.fixture(scope="module")
def told() -> list[Event]:
    rules = Rules(RulesConfig.model_validate(TREE), camera="hall", classes=("person",))
    rows = np.loadtxt(RECORDED, delimiter=",")
    events: list[Event] = []
    for frame in range(NUM_FRAMES):
        given = rules.update(
            tracks_of(rows[rows[:, 0] == frame + 1]),
            PICTURE_HW,
            at_s=frame / FRAMES_PER_S,
            captured_ns=frame * 10**9 // FRAMES_PER_S,
        )
        events += given.events
    return events


def tracks_of(rows: np.ndarray) -> Tracks:
    left, top, width, height = rows[:, 2:6].T
    return Tracks(
        xyxy=np.stack((left, top, left + width, top + height), axis=1).astype(np.float32),
        score=rows[:, 6].astype(np.float32),
        class_id=rows[:, 7].astype(np.int64),
        track_id=rows[:, 1].astype(np.int64),
    )


def test_one_person_comes_stays_and_leaves(told: list[Event]) -> None:
    assert [(event.rule, event.phase) for event in without_updates(told)] == [
        ("came", "start"),
        ("stayed", "start"),
        ("stood", "start"),
        ("stood", "end"),
        ("came", "end"),
        ("stayed", "end"),
        ("left", "moment"),
        ("out to the right", "moment"),
    ]


def test_a_line_is_crossed_once_when_the_person_leaves(told: list[Event]) -> None:
    (crossing,) = [event for event in told if event.kind == "line"]
    assert (crossing.direction, crossing.count) == ("in", 1)
    assert crossing.reason == "person 1 crossed right (in), number 1 today"
    assert crossing.at_s == pytest.approx(19, abs=0.3)


def test_the_stay_is_as_long_as_in_the_clip(told: list[Event]) -> None:
    (end,) = [event for event in told if (event.rule, event.phase) == ("stayed", "end")]
    assert (end.started_s, end.ended_s) == (pytest.approx(7, abs=0.2), pytest.approx(18.7, abs=0.3))


def without_updates(events: Sequence[Event]) -> list[Event]:
    return [event for event in events if event.phase != "update"]
