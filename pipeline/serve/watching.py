# SPDX-License-Identifier: Apache-2.0
"""One camera's tracks and pictures in, its events told: what lies between tracker and receivers.

Used by the thread that reads the camera's tracks. Pictures are encoded here, as their slot is only
lent; they and what rules remember are written by another thread: a disk that hangs stops nobody.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from model.files import make_folder, remove_leftovers, replacing
from pipeline.events import Event
from pipeline.messages import Tracked
from pipeline.rules.config import RulesConfig
from pipeline.rules.engine import Rules
from pipeline.rules.memory import RulesMemory
from pipeline.rules.telling import Told
from pipeline.stages.observe import View
from pipeline.telling.snapshots import Snapshots
from pipeline.tracking.tracks import Tracks

logger = logging.getLogger(__name__)

_REMEMBER_S: Final = 30.0
_WAITING: Final = 32
_MOST_OPEN: Final = 1000


class Writer:
    """Writes files in a thread of its own; what it cannot keep up with is counted."""

    def __init__(self) -> None:
        self.num_dropped = 0
        """Files that were never written, because too many waited."""
        self._waiting: queue.Queue[Callable[[], object] | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._write, name="writer", daemon=True)
        self._thread.start()

    def put(self, write: Callable[[], object]) -> bool:
        """Have something written; False where there is no room for it."""
        try:
            self._waiting.put_nowait(write)
        except queue.Full:
            self.num_dropped += 1
            return False
        return True

    def close(self, within_s: float) -> None:
        """Write what waits, but not for longer than this."""
        until_s = time.monotonic() + within_s
        try:
            self._waiting.put(None, timeout=within_s)
        except queue.Full:
            return
        self._thread.join(max(0.0, until_s - time.monotonic()))

    def _write(self) -> None:
        while (write := self._waiting.get()) is not None:
            write()


class CameraWatch:
    """Applies one camera's rules to its frames and tells what comes of it."""

    def __init__(
        self,
        settings: Callable[[], RulesConfig],
        *,
        camera: str,
        classes: Sequence[str],
        keeping: "Keeping",
        memory: "MemoryFile",
    ) -> None:
        """Begin to watch.

        Args:
            settings: Gives the camera's rules as they are now; they may change between two frames.
            camera: What its events call it.
            classes: The model's names of its classes.
            keeping: Where events and pictures go.
            memory: What its rules knew before.
        """
        self._settings = settings
        self._config = settings()
        self._make_rules = partial(Rules, camera=camera, classes=classes)
        self._rules = self._make_rules(self._config, memory=memory.read())
        self._keeping = keeping
        self._memory = memory
        self._pictures: dict[str, str] = {}
        """Names of the pictures of events that are open."""
        self._remembered_s = time.monotonic()
        self._at_s = time.time()

    def see(self, frame: Tracked, tracks: Tracks, view: View | None) -> None:
        """Take in the next frame."""
        self._at_s = wall_time(frame.captured_ns)
        self._follow_settings()
        if frame.discontinuity:
            self._pass_on(self._rules.reset(self._at_s), None)
        told = self._rules.update(
            tracks,
            frame.picture_hw,
            at_s=self._at_s,
            captured_ns=frame.captured_ns,
            predicted=frame.predicted,
        )
        self._pass_on(told, view)
        if time.monotonic() - self._remembered_s > _REMEMBER_S:
            self._remember()

    def lost(self) -> None:
        """Note that the camera gives nothing any more; what was open ends as interrupted."""
        self._pass_on(self._rules.reset(self._at_s), None)

    def close(self) -> None:
        """End what is open and write down what the next run must know."""
        self._remember()
        self._pass_on(self._rules.close(self._at_s), None)

    def _follow_settings(self) -> None:
        """Go by other rules from here on; what was open ends as interrupted."""
        before, self._config = self._config, self._settings()
        if before is self._config or _are_equal(before, self._config):
            return
        self._pass_on(self._rules.close(self._at_s), None)
        self._rules = self._make_rules(self._config, memory=self._rules.memory())

    def _pass_on(self, told: Told, view: View | None) -> None:
        if told.pictures and view is not None:
            jpeg = view.jpeg()
            for wanted in told.pictures:
                self._take(wanted.event_id, jpeg)
        for event in told.events:
            self._keeping.tell(replace(event, snapshot=self._pictures.get(event.id)))
            if event.phase in ("end", "moment"):
                self._pictures.pop(event.id, None)

    def _take(self, event_id: str, jpeg: bytes) -> None:
        snapshots = self._keeping.snapshots
        waits = self._keeping.writer.put(partial(snapshots.save, event_id, jpeg))
        if waits and len(self._pictures) < _MOST_OPEN:
            self._pictures[event_id] = snapshots.name(event_id)

    def _remember(self) -> None:
        self._remembered_s = time.monotonic()
        if self._memory.note(self._rules.memory()):
            self._keeping.writer.put(self._memory.write)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """Where what cameras tell goes."""

    tell: Callable[[Event], None]
    snapshots: Snapshots
    writer: Writer


class MemoryFile:
    """What a camera's rules must know when they begin anew, and in a small file for a restart."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._latest: RulesMemory | None = None
        self._written: RulesMemory | None = None

    def read(self) -> RulesMemory | None:
        """Return it; None where there is none, or none that can be read."""
        if self._latest is None:
            self._latest = self._written = self._from_disk()
        return self._latest

    def note(self, memory: RulesMemory) -> bool:
        """Take what is known now; says whether the file has something else."""
        self._latest = memory
        return memory != self._written

    def write(self) -> None:
        """Write it whole or not at all; a disk that is full costs a warning."""
        memory = self._latest
        try:
            make_folder(self._path.parent)
            with replacing(self._path) as temporary:
                temporary.write_bytes(msgspec.json.encode(memory))
            self._written = memory
        except OSError as failure:
            logger.warning("%s: not written (%s)", self._path, failure)

    def _from_disk(self) -> RulesMemory | None:
        try:
            remove_leftovers(self._path.parent, self._path.name)
            return msgspec.json.decode(self._path.read_bytes(), type=RulesMemory)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as failure:
            logger.warning("%s: begun anew, as it cannot be read (%s)", self._path, failure)
            return None


def wall_time(captured_ns: int) -> float:
    """Return the seconds since 1970 of a moment by the monotonic clock."""
    return time.time() - (time.monotonic_ns() - captured_ns) / 1e9


def _are_equal(one: RulesConfig, other: RulesConfig) -> bool:
    """Whether the rules are; what else a camera's settings hold is not asked."""
    return all(getattr(one, name) == getattr(other, name) for name in RulesConfig.model_fields)
