# SPDX-License-Identifier: Apache-2.0
"""What is known of each box now, for those who ask."""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from pipeline.fleet.database import Kept
from pipeline.transport.fleetwire import Report, decode_report

logger = logging.getLogger(__name__)

State = Literal["connected", "away", "lost", "never-seen", "revoked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One box; counts are since the start, but for `told`."""

    name: str
    key: str | None
    """Its public key in hexadecimal; None once it is revoked."""
    state: State
    heard_s: float | None
    """In seconds since 1970."""
    told: int = 0
    """Messages of it that were ever kept."""
    known: int = 0
    """Messages that had come before."""
    rejected: int = 0
    """Messages that were no events."""
    report: Report | None = None
    """The latest."""


class Roster:
    """Boxes by name; any thread may ask, one tells."""

    def __init__(self, kept: Mapping[str, Kept], lost_after_s: float) -> None:
        self._lock = threading.Lock()
        self._lost_after_s = lost_after_s
        self._began_s = time.monotonic()
        self._heard: dict[str, float] = {}
        """By this process, by the monotonic clock."""
        self._connected: set[str] = set()
        self._boxes = {
            name: Box(
                name=name, key=None, state="revoked", heard_s=one.heard_s, told=one.told,
                report=_read(one.report),
            )
            for name, one in kept.items()
        }  # fmt: skip

    def boxes(self) -> list[Box]:
        """All of them, by name."""
        with self._lock:
            return [box for _, box in sorted(self._boxes.items())]

    def allow(self, names: Mapping[str, str]) -> None:
        """Follow the keys that are allowed now, given as names by key."""
        keys = {name: key for key, name in names.items()}
        with self._lock:
            for name in keys.keys() - self._boxes.keys():
                self._boxes[name] = Box(name=name, key=None, state="never-seen", heard_s=None)
            for name, box in self._boxes.items():
                if box.key != keys.get(name):
                    self._put(replace(box, key=keys.get(name)))

    def connect(self, name: str, *, stands: bool) -> None:
        """A box came, or its connection ended."""
        with self._lock:
            (self._connected.add if stands else self._connected.discard)(name)
            self._put(self._boxes[name])

    def hear(self, name: str, report: Report | None = None) -> None:
        """A box said something."""
        with self._lock:
            self._heard[name] = time.monotonic()
            box = self._boxes[name]
            report = box.report if report is None else report
            self._put(replace(box, heard_s=time.time(), report=report))

    def count(self, name: str, *, told: int = 0, known: int = 0, rejected: int = 0) -> None:
        """Note what became of messages."""
        with self._lock:
            box = self._boxes[name]
            self._boxes[name] = replace(
                box,
                told=box.told + told,
                known=box.known + known,
                rejected=box.rejected + rejected,
            )

    def look(self) -> None:
        """Learn which boxes are lost."""
        with self._lock:
            for box in self._boxes.values():
                self._put(box)

    def _put(self, box: Box) -> None:
        """Have a box be as it is now; say so if it is lost, or came back."""
        state = self._state(box, time.monotonic())
        if "lost" in (state, box.state) and state != box.state:
            silent = f"not heard for {self._lost_after_s:g} s"
            logger.warning("%s: %s", box.name, f"lost: {silent}" if state == "lost" else state)
        self._boxes[box.name] = replace(box, state=state)

    def _state(self, box: Box, now_s: float) -> State:
        if box.key is None:
            return "revoked"
        if box.heard_s is None:
            return "never-seen"
        silent_s = now_s - self._heard.get(box.name, self._began_s)
        if silent_s > self._lost_after_s:
            return "lost"
        return "connected" if box.name in self._connected else "away"


def _read(report: bytes | None) -> Report | None:
    """A report that was kept; none where another version made it."""
    if report is None:
        return None
    try:
        return decode_report(report)
    except msgspec.DecodeError:
        return None
