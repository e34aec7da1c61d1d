# SPDX-License-Identifier: Apache-2.0
"""Entries of systemd's journal, as its socket gets them."""

import io
import logging
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.journald import JournalHandler, is_journal, priority
from pipeline.logs import JournalFields, Scrubber

PASSWORD = "s3cr/t p@ss"


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(str(tmp_path / "journal"))
        line.settimeout(5)
        yield line


@pytest.fixture
def otherwise() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def logger(tmp_path: Path, otherwise: io.StringIO) -> Iterator[logging.Logger]:
    handler = JournalHandler(
        JournalFields(Scrubber([PASSWORD])),
        otherwise=logging.StreamHandler(otherwise),
        journal=tmp_path / "journal",
    )
    logger = logging.getLogger("some.part")
    logger.addHandler(handler)
    yield logger
    logger.removeHandler(handler)
    handler.close()


def read(entry: bytes) -> dict[str, str]:
    """The fields of an entry, by the protocol's own rules."""
    fields = {}
    while entry:
        head, _, rest = entry.partition(b"\n")
        name, equals, value = head.partition(b"=")
        if not equals:
            (length,) = struct.unpack("<Q", rest[:8])
            value, rest = rest[8 : 8 + length], rest[8 + length + 1 :]
        fields[name.decode()], entry = value.decode(), rest
    return fields


def test_an_entry_has_a_priority_a_camera_and_its_place_in_the_code(
    logger: logging.Logger, journal: socket.socket
) -> None:
    logger.warning("lost %d frames", 3, extra={"camera": "yard"})
    fields = read(journal.recv(65536))
    assert fields.pop("CODE_LINE").isdigit()
    assert fields == {
        "MESSAGE": "lost 3 frames",
        "PRIORITY": "4",
        "CAMERA": "yard",
        "LOGGER": "some.part",
        "SYSLOG_IDENTIFIER": "sightline",
        "CODE_FILE": __file__,
        "CODE_FUNC": "test_an_entry_has_a_priority_a_camera_and_its_place_in_the_code",
    }


def test_a_trace_is_part_of_the_message_and_no_secret_is(
    logger: logging.Logger, journal: socket.socket
) -> None:
    try:
        raise OSError(f"rtsp://bob:s3cr%2Ft@192.0.2.1/x: {PASSWORD}")
    except OSError:
        logger.exception("failed", extra={"camera": PASSWORD})
    entry = journal.recv(65536)
    fields = read(entry)
    assert fields["MESSAGE"].startswith("failed\nTraceback")
    assert (fields["PRIORITY"], fields["CAMERA"]) == ("3", "***")
    assert b"s3cr" not in entry


def test_a_text_too_long_for_a_datagram_is_cut(
    logger: logging.Logger, journal: socket.socket
) -> None:
    logger.error("x" * 1_000_000)
    message = read(journal.recv(1 << 20))["MESSAGE"]
    assert message == "x" * len(message)
    assert 1000 < len(message) < 100_000


def test_what_the_journal_does_not_take_is_written_otherwise(
    logger: logging.Logger, otherwise: io.StringIO
) -> None:
    logger.error("nobody hears")
    assert otherwise.getvalue() == "nobody hears\n"


@pytest.mark.parametrize(
    ("level", "number"),
    [(logging.CRITICAL, 3), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (10, 7)],
)
def test_levels_are_syslog_s_priorities(level: int, number: int) -> None:
    assert priority(level) == number


def test_a_stream_is_the_journal_s_if_the_manager_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "stream").open("w") as stream, (tmp_path / "other").open("w") as other:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        assert is_journal(stream)
        assert not is_journal(other)
        assert not is_journal(io.StringIO())
        monkeypatch.delenv("JOURNAL_STREAM")
        assert not is_journal(stream)
    assert not is_journal(stream)  # closed
