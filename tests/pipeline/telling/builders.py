# SPDX-License-Identifier: Apache-2.0
"""What tests of telling share: events, settings, and waiting for something to become so."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from pipeline.events import Event, Subject
from pipeline.telling.config import TellingConfig

PERSON = Subject(
    track_id=7, class_name="person", score=0.9, xyxy=(1.0, 2.0, 3.0, 4.0), picture_hw=(72, 128)
)


def make_event(number: int = 0, **fields: Any) -> Event:
    """An event whose id, 32 digits, is its number."""
    plain: dict[str, Any] = {
        "id": f"{number:032x}",
        "revision": 0,
        "phase": "moment",
        "kind": "line",
        "camera": "yard",
        "rule": "gate",
        "reason": "a person crossed gate",
        "at_s": time.time(),
        "started_s": 1000.0 + number,
    }
    return Event(**plain | fields)


def then(event: Event, **fields: Any) -> Event:
    """The next message about an event."""
    return msgspec.structs.replace(event, revision=event.revision + 1, **fields)


def make_config(folder: Path, **parts: Any) -> TellingConfig:
    """Settings with short pauses and everything in one folder."""
    plain = {
        "database": {"path": folder / "kept/events.db"},
        "snapshots": {"directory": folder / "snapshots"},
        "outbox": {"longest_pause_s": 0.05},
    }
    return TellingConfig.model_validate(plain | parts)


def wait_until(holds: Callable[[], object], within_s: float = 20.0) -> None:
    """Return once something holds; fail if it never does."""
    by_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < by_s, "it did not become so"
        time.sleep(0.01)
