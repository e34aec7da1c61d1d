# SPDX-License-Identifier: Apache-2.0
"""Appends messages to a file, one a line.

A line counts as told once it is on the disk itself. What a power cut has torn at the end is removed
at the start; it had not been confirmed and is told again.
"""

import os
from collections.abc import Sequence
from typing import Final

from model.files import make_folder, sync
from pipeline.telling.config import JsonlConfig
from pipeline.telling.database import identity
from pipeline.telling.letters import Letter, Unreachable

_CHUNK_BYTES: Final = 65_536
_TAIL_BYTES: Final = 4 << 20
"""More than is ever written between two times that all is on the disk."""


class JsonlReceiver:
    """One file, and those it was before."""

    window = 64
    name = "jsonl"

    def __init__(self, config: JsonlConfig) -> None:
        self._path = config.path
        self._rotate_bytes = config.rotate_mib << 20
        self._keep_files = config.keep_files
        self._descriptor: int | None = None
        self._num_bytes = 0
        self._identity: tuple[int, int] | None = None

    @property
    def connected(self) -> bool:
        """Whether the file is open."""
        return self._descriptor is not None

    def ready(self) -> None:
        """Open the file."""
        try:
            if self._descriptor is None or identity(self._path) != self._identity:
                self._open()
        except OSError as failure:
            raise self._lost(failure) from None

    def send(self, letters: Sequence[Letter]) -> None:
        """Append letters, and wait until they are on the disk."""
        lines = b"".join(letter.text + b"\n" for letter in letters)
        try:
            self.ready()
            if self._num_bytes and self._num_bytes + len(lines) > self._rotate_bytes:
                self._rotate()
            self._write(lines)
        except OSError as failure:
            raise self._lost(failure) from None

    def close(self) -> None:
        """Close the file."""
        self._shut()

    def _open(self) -> None:
        self._shut()
        make_folder(self._path.parent)
        self._descriptor = os.open(
            self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644
        )
        self._identity = identity(self._path)
        self._num_bytes = _end_of_last_line(self._descriptor)
        os.ftruncate(self._descriptor, self._num_bytes)
        sync(self._path.parent)  # its name, and those that a rotation has changed

    def _write(self, lines: bytes) -> None:
        assert self._descriptor is not None
        written = 0
        try:
            while written < len(lines):
                written += os.write(self._descriptor, lines[written:])
        except OSError:
            os.ftruncate(self._descriptor, self._num_bytes)
            raise
        self._num_bytes += len(lines)
        os.fdatasync(self._descriptor)

    def _rotate(self) -> None:
        self._shut()
        for number in range(self._keep_files, 0, -1):
            newer = self._numbered(number - 1) if number > 1 else self._path
            if os.path.lexists(newer):
                os.replace(newer, self._numbered(number))  # noqa: PTH105 - a text with a number
        self._open()

    def _numbered(self, number: int) -> str:
        return f"{self._path}.{number}"

    def _shut(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _lost(self, failure: OSError) -> Unreachable:
        self._shut()
        reason = (failure.strerror or "unknown").lower()
        return Unreachable(f"{self._path}: cannot be written: {reason}")


def _end_of_last_line(descriptor: int) -> int:
    """Size of the file without what follows its last line end, or a hole at its end."""
    size = os.fstat(descriptor).st_size
    start = max(0, size - _TAIL_BYTES)
    hole = os.pread(descriptor, size - start, start).find(b"\0")  # JSON has no such byte
    end = size if hole < 0 else start + hole
    while end:
        start = max(0, end - _CHUNK_BYTES)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
