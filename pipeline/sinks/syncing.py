# SPDX-License-Identifier: Apache-2.0
"""Has a growing file reach the disk, so that a power cut takes little of it."""

import os
import threading
from pathlib import Path

from model.files import sync


class Syncer:
    """A thread beside whoever writes a file, since a slow disk takes its time."""

    def __init__(self, path: Path, delay_s: float) -> None:
        """Begin.

        Args:
            path: The file, which is there.
            delay_s: How long after a call the file is synced, for more to gather.
        """
        self._path, self._delay_s = path, delay_s
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._failure: OSError | None = None
        self._called, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="sync", daemon=True)
        self._thread.start()

    def call(self) -> None:
        """Have what is written by now reach the disk soon; returns at once.

        Raises:
            OSError: it did not the last time.
        """
        if self._failure is not None:
            raise self._failure
        self._called.set()

    def close(self) -> None:
        """End; what is under way is waited for.

        Raises:
            OSError: something did not reach the disk. Nobody else is told: the system reports a
                failed write to one descriptor once.
        """
        self._ended.set()
        self._called.set()
        self._thread.join()
        os.close(self._descriptor)
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            sync(self._path.parent)  # that the file is there
            while self._called.wait():
                self._called.clear()  # before the look at the end: what comes after it is seen
                if self._ended.wait(self._delay_s):
                    return
                os.fdatasync(self._descriptor)
        except OSError as failure:
            self._failure = failure
