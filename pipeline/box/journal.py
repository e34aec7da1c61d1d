# SPDX-License-Identifier: Apache-2.0
"""How far an update has come: one small file that is there while it goes on, or was cut off.

It is written before each step, and names the step that may have begun. So what is found after a
power cut says what may have been done, and what is to be undone.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import msgspec

from pipeline.box.files import remove_file, replace_file
from pipeline.errors import UpdateFailed

Step = Literal[
    "installing", "warming", "stopping", "backing-up", "migrating", "switching", "watching",
    "rolling-back",
]  # fmt: skip
BEFORE_STOPPING: Final[frozenset[Step]] = frozenset({"installing", "warming"})
"""While these go on, the version before runs and nothing of it was touched."""
_AGAIN_S: Final = 0.05


class UpdateState(msgspec.Struct, frozen=True, kw_only=True):
    """One update, as it stands."""

    step: Step
    old: str
    """The version that ran before."""
    new: str
    previous: str | None
    """Where `previous` led before."""


class Journal:
    """The file that keeps the state."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> UpdateState | None:
        """The update that was cut off; None if none was.

        Raises:
            UpdateFailed: the file cannot be read.
        """
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=UpdateState)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as fault:
            raise UpdateFailed(
                f"{self._path}: cannot be read ({fault}); see that `current` leads to a version "
                "that works, and remove it"
            ) from None

    def enter(self, state: UpdateState) -> UpdateState:
        """Keep that a step begins."""
        replace_file(self._path, msgspec.json.encode(state) + b"\n")
        return state

    def clear(self) -> None:
        """Keep that the update is over."""
        remove_file(self._path)


@contextmanager
def alone(path: Path, wait_s: float = 0.0) -> Iterator[int | None]:
    """Keep other updates away; gives the lock's descriptor, or None if another has it.

    Children that are given the descriptor keep the lock as long as they run, so that what an
    update that was killed had begun is over before the next one looks.

    Raises:
        UpdateFailed: the lock cannot be opened.
    """
    until_s = time.monotonic() + wait_s
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fchmod(descriptor, 0o600)  # who may read it could lock it, and keep every update away
    except OSError as fault:
        reason = (fault.strerror or str(fault)).lower()
        raise UpdateFailed(f"{path}: {reason}; updates are made by root: sudo sightline") from None
    try:
        while not _locked(descriptor):
            if time.monotonic() >= until_s:
                yield None
                return
            time.sleep(_AGAIN_S)
        yield descriptor
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
