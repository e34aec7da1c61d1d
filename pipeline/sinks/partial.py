# SPDX-License-Identifier: Apache-2.0
"""Outputs that get their final name only once they are whole.

Every writer of this package writes `<name>.partial` and has two ends: `finish()` completes the file
and renames it, `abandon()` closes it under its temporary name, readable as far as it goes. Whether
an existing output may be replaced is decided before a writer is made. What is written reaches the
disk soon after, and a file with its final name has reached it whole.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Final

import av

from model.files import put_in_place
from pipeline.errors import SinkError
from pipeline.sinks.syncing import Syncer

_WAY_OUT: Final = {
    errno.ENOSPC: "free some space or write to another folder",
    errno.EDQUOT: "free some space or write to another folder",
    errno.EACCES: "write to a folder of your own",
    errno.EPERM: "write to a folder of your own",
    errno.EROFS: "write to a folder of your own",
    errno.ENOENT: "create the folder, and keep it while the run lasts",
}


def partial_path(path: Path) -> Path:
    """Where the file of final name `path` is written."""
    return path.with_name(f"{path.name}.partial")


class PartialFile(FileIO):
    """The file at `partial_path(path)`: unbuffered, so that a killed process loses nothing."""

    def __init__(self, path: Path, *, sync_delay_s: float = 0.0) -> None:
        self._syncer: Syncer | None = None
        self._path, self._sync_delay_s = partial_path(path), sync_delay_s
        self._end, self._synced = 0, 0
        super().__init__(self._path, "wb")

    def write(self, data: bytes) -> int:  # type: ignore[override]  # of all buffers only these
        """Write all of it: a plain file stops short on a full disk, and FFmpeg does not look.

        Raises:
            OSError: it cannot be written, or was removed: a file without a name takes hours of
                output without complaint and keeps none of it.
        """
        start = self.tell()
        if start < self._end:  # what was appended is there before anything old is changed
            os.fdatasync(self.fileno())
        if os.fstat(self.fileno()).st_nlink == 0:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        written = 0
        while written < len(data):
            written += super().write(data[written:] if written else data)
        self._end = max(self._end, start + written)
        return written

    def sync_soon(self) -> None:
        """Have what was appended reach the disk, without waiting for it.

        Raises:
            OSError: earlier data did not.
        """
        if self._end == self._synced:
            return
        if self._syncer is None:
            self._syncer = Syncer(self._path, self._sync_delay_s)
        self._syncer.call()
        self._synced = self._end

    def close(self) -> None:
        """Close the file; `publish` has the rest of it reach the disk.

        Raises:
            OSError: earlier data did not.
        """
        syncer, self._syncer = self._syncer, None
        try:
            if syncer is not None:
                syncer.close()
        finally:
            super().close()


def publish(path: Path) -> None:
    """Give the finished file its final name, once all of it is on the disk."""
    put_in_place(partial_path(path), path)


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Turn a failure to write into one `SinkError` about the final file."""
    try:
        yield
    except (OSError, av.FFmpegError) as failure:
        cause = failure.strerror or str(failure)
        way_out = _WAY_OUT.get(failure.errno or 0, "check the disk and the folder")
        raise SinkError(f"{path}: cannot be written: {cause.lower()}; {way_out}") from failure
