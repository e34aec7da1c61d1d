# SPDX-License-Identifier: Apache-2.0
"""Log records as entries of systemd's journal, each with fields of its own.

What a service writes to stderr becomes entries that have a text and nothing else; sent to the
journal's own socket, an entry also has a priority, a place in the code, and a camera.

Protocol: systemd.io, "Native Journal Protocol".
"""

import logging
import os
import socket
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TextIO

JOURNAL: Final = Path("/run/systemd/journal/socket")
PRIORITIES: Final = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""From which level on a record has which of syslog's priorities; below them all it is 7."""

_LONGEST: Final = 32 * 1024
"""Bytes of one field; an entry must fit into one datagram."""
_PATIENCE_S: Final = 1.0

Describe = Callable[[logging.LogRecord], Mapping[str, str]]


def is_journal(stream: TextIO) -> bool:
    """Whether what is written to a stream ends up in the journal."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # no file at all, or closed
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def priority(level: int) -> int:
    """Return syslog's priority of a level of logging."""
    return next((number for least, number in PRIORITIES if level >= least), 7)


def encode(fields: Mapping[str, str]) -> bytes:
    """Return the datagram that is an entry with these fields."""
    return b"".join(_field(name, text) for name, text in fields.items())


def _field(name: str, text: str) -> bytes:
    """A line, or where the text has several its length and the text as it is."""
    value = text.encode(errors="replace")[:_LONGEST]
    if b"\n" not in value:
        return name.encode() + b"=" + value + b"\n"
    return name.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"


class JournalHandler(logging.Handler):
    """Sends records to the journal; one it does not take goes to another handler."""

    def __init__(
        self, describe: Describe, otherwise: logging.Handler, journal: Path = JOURNAL
    ) -> None:
        """Begin.

        Args:
            describe: Makes the fields of a record.
            otherwise: Gets what the journal does not take, as while it is restarted.
            journal: Where it listens.
        """
        super().__init__()
        self._describe, self._otherwise, self._journal = describe, otherwise, str(journal)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(_PATIENCE_S)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._socket.sendto(encode(self._describe(record)), self._journal)
        except OSError:
            self._otherwise.emit(record)

    def close(self) -> None:
        self._socket.close()
        super().close()
