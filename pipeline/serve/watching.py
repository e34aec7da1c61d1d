# SPDX-License-Identifier: Apache-2.0
"""One camera's tracks and pictures in, its events told: what lies between tracker and receivers.

Used by the thread that reads the camera's tracks. Pictures are encoded here, as their slot is only
lent, and written by another thread: a disk that hangs stops nobody.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from model.files import replacing
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


class SnapshotWriter:
    """Writes pictures of events in a thread of its own; what it cannot keep up with is counted."""

    def __init__(self, snapshots: Snapshots) -> None:
        self.num_dropped = 0
        """Pictures that were never written, because too many waited."""
        self._snapshots = snapshots
        self._waiting: queue.Queue[tuple[str, bytes] | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._write, name="snapshots", daemon=True)
        self._thread.start()

    def put(self, event_id: str, jpeg: bytes) -> str | None:
        """Have a picture written; return its name, None where there is no room for it."""
        try:
            self._waiting.put_nowait((event_id, jpeg))
        except queue.Full:
            self.num_dropped += 1
            return None
        return self._snapshots.name(event_id)

    def close(self, within_s: float) -> None:
        """Write what waits, but not for longer than this."""
        until_s = time.monotonic() + within_s
        try:
            self._waiting.put(None, timeout=within_s)
        except queue.Full:
            return
        self._thread.join(max(0.0, until_s - time.monotonic()))

    def _write(self) -> None:
        while (item := self._waiting.get()) is not None:
            self._snapshots.save(*item)


class CameraWatch:
    """Applies one camera's rules to its frames and tells what comes of it."""

    def __init__(
        self,
        config: RulesConfig,
        *,
        camera: str,
        classes: Sequence[str],
        tell: Callable[[Event], None],
        writer: SnapshotWriter,
        memory: "MemoryFile",
    ) -> None:
        self._rules = Rules(config, camera=camera, classes=classes, memory=memory.read())
        self._tell = tell
        self._writer = writer
        self._memory = memory
        self._pictures: dict[str, str] = {}
        """Names of the pictures of events that are open."""
        self._remembered_s = time.monotonic()
        self._at_s = time.time()

    def see(self, frame: Tracked, tracks: Tracks, view: View | None) -> None:
        """Take in the next frame."""
        self._at_s = wall_time(frame.captured_ns)
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

    def _pass_on(self, told: Told, view: View | None) -> None:
        if told.pictures and view is not None:
            jpeg = view.jpeg()
            for wanted in told.pictures:
                self._take(wanted.event_id, jpeg)
        for event in told.events:
            self._tell(replace(event, snapshot=self._pictures.get(event.id)))
            if event.phase in ("end", "moment"):
                self._pictures.pop(event.id, None)

    def _take(self, event_id: str, jpeg: bytes) -> None:
        name = self._writer.put(event_id, jpeg)
        if name is not None and len(self._pictures) < _MOST_OPEN:
            self._pictures[event_id] = name

    def _remember(self) -> None:
        self._remembered_s = time.monotonic()
        self._memory.write(self._rules.memory())


class MemoryFile:
    """What a camera's rules must know after a restart, in a small file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> RulesMemory | None:
        """Return it; None where there is none, or none that can be read."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=RulesMemory)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as failure:
            logger.warning("%s: begun anew, as it cannot be read (%s)", self._path, failure)
            return None

    def write(self, memory: RulesMemory) -> None:
        """Write it whole or not at all; a disk that is full costs a warning."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._path) as temporary:
                temporary.write_bytes(msgspec.json.encode(memory))
        except OSError as failure:
            logger.warning("%s: not written (%s)", self._path, failure)


def wall_time(captured_ns: int) -> float:
    """Return the seconds since 1970 of a moment by the monotonic clock."""
    return time.time() - (time.monotonic_ns() - captured_ns) / 1e9
