# SPDX-License-Identifier: Apache-2.0
"""Pictures of events: a JPEG file each, named after its event, kept by age and bytes.

They lie in folders named after the beginning of the id, its time, one for every 4.7 hours. A disk
that does not take them is said once and costs pictures, nothing else.
"""

import logging
import re
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from model.files import make_folder, put_in_place
from pipeline.telling.config import SnapshotsConfig

logger = logging.getLogger(__name__)

_ID = re.compile(r"[0-9a-f]{32}")
_FOLDER_DIGITS: Final = 6
_TIME_DIGITS: Final = 12
_DAY_MS: Final = 86_400_000


class Snapshots:
    """The folder of pictures; any thread may use it."""

    def __init__(self, config: SnapshotsConfig) -> None:
        self.folder = config.directory
        self.num_failed = 0
        """Pictures that could not be written."""
        self._keep_days = config.keep_days
        self._most_bytes = config.keep_mib << 20
        self._lock = threading.Lock()
        self._failing = False
        self._sizes = dict(self._found())

    @property
    def num_bytes(self) -> int:
        """How much they take."""
        with self._lock:
            return sum(self._sizes.values())

    def name(self, event_id: str) -> str:
        """Return what the picture of an event is called, in the folder.

        Raises:
            ValueError: the id is none of ours.
        """
        if not _ID.fullmatch(event_id):
            raise ValueError(f"an event's id is 32 hexadecimal digits, got {event_id!r}")
        return f"{event_id[:_FOLDER_DIGITS]}/{event_id}.jpg"

    def save(self, event_id: str, jpeg: bytes) -> str | None:
        """Write the picture of an event, in place of one it has; return its name, if it could be.

        Raises:
            ValueError: the id is none of ours.
        """
        name = self.name(event_id)
        path = self.folder / name
        partial = path.with_name(f"{path.name}.{threading.get_ident()}.partial")
        try:
            make_folder(path.parent)
            partial.write_bytes(jpeg)
            put_in_place(partial, path)
        except OSError as failure:
            with suppress(OSError):
                partial.unlink()
            self._fail(failure)
            return None
        with self._lock:
            self._sizes[name] = len(jpeg)
            self._failing = False
        return name

    def remove(self, names: Iterable[str]) -> None:
        """Remove the pictures of events that are no longer kept."""
        for name in names:
            with self._lock:
                known = self._sizes.pop(name, None) is not None
            if known:
                self._unlink(name)

    def tidy(self, now_s: float) -> None:
        """Remove what is too old at `now_s`, since 1970, or too much, the oldest first."""
        oldest_ms = max(0, int(now_s * 1000 - self._keep_days * _DAY_MS))
        oldest = f"{oldest_ms:0{_TIME_DIGITS}x}"
        with self._lock:
            total = sum(self._sizes.values())
            leaving = []
            for name in sorted(self._sizes):
                if _id_of(name) >= oldest and total <= self._most_bytes:
                    break
                total -= self._sizes[name]
                leaving.append(name)
        self.remove(leaving)

    def _found(self) -> Iterable[tuple[str, int]]:
        """Pictures of earlier runs; half-written ones are removed."""
        for path in self.folder.glob(f"{'[0-9a-f]' * _FOLDER_DIGITS}/*"):
            if path.suffix == ".partial":
                with suppress(OSError):
                    path.unlink()
            elif path.suffix == ".jpg" and _ID.fullmatch(path.stem):
                with suppress(OSError):
                    yield f"{path.parent.name}/{path.name}", path.stat().st_size

    def _unlink(self, name: str) -> None:
        path = self.folder / name
        with suppress(OSError):  # someone else removed it, or it is found at the next start
            path.unlink()
        with suppress(OSError):  # there are others in it
            path.parent.rmdir()

    def _fail(self, failure: OSError) -> None:
        with self._lock:
            self.num_failed += 1
            said, self._failing = self._failing, True
        if not said:
            reason = (failure.strerror or "unknown").lower()
            logger.error("%s: pictures of events cannot be written: %s", self.folder, reason)


def _id_of(name: str) -> str:
    return name[_FOLDER_DIGITS + 1 : -len(".jpg")]
