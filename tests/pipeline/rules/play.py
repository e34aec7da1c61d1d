# SPDX-License-Identifier: Apache-2.0
"""A camera in a few lines: boxes frame by frame through a camera's rules, events collected."""

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np

from pipeline.events import Event
from pipeline.rules.config import RulesConfig
from pipeline.rules.engine import Rules
from pipeline.rules.memory import RulesMemory
from pipeline.rules.telling import PictureWanted
from pipeline.tracking.tracks import Tracks

CLASSES = ("person", "car", "dog")
PICTURE_HW = (1000, 1000)
START_S = 1_767_268_800.0
"""2026-01-01 12:00 in UTC, a Thursday."""
YARD = {"yard": [[0.0, 0.5], [1.0, 0.5], [1.0, 1.0], [0.0, 1.0]]}
"""The lower half of the picture."""
GATE = {"gate": [[0.0, 0.5], [1.0, 0.5]]}
"""From left to right through the middle: up is in."""

Boxes = Mapping[int, Sequence[float]]
"""By track id: left, top, right, bottom; then score and class where they matter."""


def standing(x: float, y: float, size: float = 100.0) -> tuple[float, ...]:
    """A box whose lower edge has its middle here, in pixels."""
    return x - size / 2, y - size, x + size / 2, y


def tracks_of(boxes: Boxes) -> Tracks:
    rows = [(*box, *(0.9, 0)[len(box) - 4 :]) for box in boxes.values()]
    columns = np.array(rows, np.float32).reshape(-1, 6)
    return Tracks(
        xyxy=columns[:, :4],
        score=columns[:, 4],
        class_id=columns[:, 5].astype(np.int64),
        track_id=np.array(list(boxes), np.int64).reshape(-1),
    )


class Play:
    """Rules that are fed, and what they told."""

    def __init__(
        self,
        *rules: Mapping[str, Any],
        step_s: float = 0.1,
        at_s: float = START_S,
        memory: RulesMemory | None = None,
        **config: Any,
    ) -> None:
        numbers = count(1)
        tree = {"zones": YARD, "lines": GATE, "timezone": "UTC"} | config
        named = [{"name": str(number)} | dict(rule) for number, rule in enumerate(rules)]
        self.rules = Rules(
            RulesConfig.model_validate(tree | {"rules": named}),
            camera="front",
            classes=CLASSES,
            memory=memory,
            new_id=lambda: f"event-{next(numbers)}",
        )
        self.at_s = at_s
        self.now_s = 1000.0
        self.step_s = step_s
        self.events: list[Event] = []
        self.pictures: list[PictureWanted] = []

    def see(
        self,
        boxes: Boxes,
        *,
        frames: int = 1,
        predicted: bool = False,
        picture_hw: tuple[int, int] = PICTURE_HW,
    ) -> list[Event]:
        """Show the same boxes for some frames; return what was told meanwhile."""
        told: list[Event] = []
        for _ in range(frames):
            self.at_s += self.step_s
            self.now_s += self.step_s
            given = self.rules.update(
                tracks_of(boxes),
                picture_hw,
                at_s=self.at_s,
                captured_ns=round(self.now_s * 1e9),
                predicted=predicted,
            )
            told += given.events
            self.pictures += given.pictures
        self.events += told
        return told

    def see_for(self, seconds: float, boxes: Boxes) -> list[Event]:
        return self.see(boxes, frames=round(seconds / self.step_s))

    def reset(self) -> list[Event]:
        told = list(self.rules.reset(self.at_s).events)
        self.events += told
        return told


def phases(events: Sequence[Event]) -> list[str]:
    return [event.phase for event in events]


def reasons(events: Sequence[Event]) -> list[str]:
    return [event.reason for event in events]
