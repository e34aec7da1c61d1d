# SPDX-License-Identifier: Apache-2.0
"""Outputs in progress, and what of them has reached the disk."""

import errno
import os
import threading
from fractions import Fraction
from pathlib import Path

import pytest

from pipeline.errors import SinkError
from pipeline.sinks.mp4 import Mp4Writer
from pipeline.sinks.partial import PartialFile, partial_path
from pipeline.sinks.text import TextWriter
from tests.pipeline.pictures import nv12_of
from tests.pipeline.sinks.videos import smooth_picture
from tests.pipeline.telling.builders import wait_until


@pytest.fixture
def synced(monkeypatch):
    """Sizes at which files were sent to the disk."""
    sizes: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: sizes.append(os.fstat(descriptor)[6]))
    return sizes


def test_what_is_appended_reaches_the_disk_soon_and_without_waiting(tmp_path, synced):
    with PartialFile(tmp_path / "a") as file:
        file.write(b"12345")
        file.sync_soon()
        wait_until(lambda: synced == [5])
        file.sync_soon()
        file.write(b"67")
        file.sync_soon()
        wait_until(lambda: synced == [5, 7])


def test_what_was_appended_is_on_the_disk_before_anything_old_is_changed(tmp_path, synced):
    with PartialFile(tmp_path / "a") as file:
        file.write(b"0000 content")
        assert not synced
        file.seek(0)
        file.write(b"1111")
        assert synced == [12]
    assert partial_path(tmp_path / "a").read_bytes() == b"1111 content"


def test_a_video_reaches_the_disk_by_whole_fragments_of_a_second(tmp_path: Path, synced) -> None:
    writer = Mp4Writer(
        tmp_path / "a.mp4", picture_hw=(240, 320), matrix="bt709", frame_rate=Fraction(10)
    )
    path, picture = partial_path(tmp_path / "a.mp4"), nv12_of(smooth_picture())
    for index in range(32):
        writer.write(picture, index * 100_000_000)
        wait_until(lambda: path.stat().st_size in (*synced, 0))
    fragments = path.read_bytes().count(b"moof")
    writer.finish()
    assert fragments == 3
    assert len(synced) >= fragments


def test_a_disk_that_did_not_take_the_last_lines_is_said_at_the_end(tmp_path, monkeypatch):
    """The system tells a failed write but once, and not to who syncs the file next."""
    refused = threading.Event()

    def refuse(_: int) -> None:
        refused.set()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("pipeline.sinks.text._SYNC_S", 0.0)
    monkeypatch.setattr(os, "fdatasync", refuse)
    writer = TextWriter(tmp_path / "a.txt")
    writer.append(b"line\n")
    assert refused.wait(5)
    with pytest.raises(SinkError, match=r"a\.txt: cannot be written: input/output error"):
        writer.finish()
    assert not (tmp_path / "a.txt").exists()


def test_a_disk_that_does_not_take_it_is_said_at_the_next_write(tmp_path, monkeypatch):
    def refuse(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("pipeline.sinks.text._SYNC_S", 0.0)
    monkeypatch.setattr(os, "fdatasync", refuse)
    writer = TextWriter(tmp_path / "a.txt")

    with pytest.raises(SinkError, match=r"a\.txt: cannot be written: input/output error"):
        wait_until(lambda: writer.append(b"line\n"))
    writer.abandon()
