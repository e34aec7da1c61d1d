# SPDX-License-Identifier: Apache-2.0
"""Between tracker and receivers: what a disk does to those who watch, and what is remembered."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.events import Event
from pipeline.messages import Tracked
from pipeline.rules.config import RulesConfig
from pipeline.rules.memory import DayCount, RulesMemory
from pipeline.serve.watching import CameraWatch, Keeping, MemoryFile, Writer
from pipeline.telling.config import SnapshotsConfig
from pipeline.telling.snapshots import Snapshots
from pipeline.tracking.tracks import Tracks

ZONE = {"left": [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]}
CROWD = {"name": "crowd", "kind": "occupancy", "zone": "left", "at_least": 1, "confirm_frames": 1}
MEMORY = RulesMemory(crossed={"gate": (DayCount(day="2026-03-29", num_in=3),)})


class HangingDisk:
    """Everything that is to be written waits."""

    def __init__(self) -> None:
        self.free = threading.Event()

    def __call__(self) -> None:
        self.free.wait(20)


@pytest.fixture
def writer() -> Iterator[Writer]:
    writer = Writer()
    yield writer
    writer.close(5)


def frame(number: int) -> Tracked:
    return Tracked(
        stream="yard",
        frame_index=number,
        pts_ns=number * 40_000_000,
        duration_ns=40_000_000,
        captured_ns=time.monotonic_ns() + number * 40_000_000,
        picture_hw=(100, 100),
    )


def tracks() -> Tracks:
    return Tracks(
        xyxy=np.array([[10, 10, 30, 30]], np.float32),
        score=np.array([0.9], np.float32),
        class_id=np.array([0]),
        track_id=np.array([1]),
    )


class Shown:
    """A picture that is always the same."""

    def jpeg(self) -> bytes:
        return b"jpeg"


def test_a_disk_that_hangs_stops_nobody_and_what_is_not_written_is_counted(
    tmp_path: Path, writer: Writer
) -> None:
    disk, told = HangingDisk(), list[Event]()
    writer.put(disk)
    keeping = Keeping(
        tell=told.append,
        snapshots=Snapshots(SnapshotsConfig(directory=tmp_path / "snapshots")),
        writer=writer,
    )
    rules = RulesConfig.model_validate({"zones": ZONE, "rules": [CROWD]})
    watches = [
        CameraWatch(
            lambda: rules,
            camera=f"yard{number}",
            classes=("person",),
            keeping=keeping,
            memory=MemoryFile(tmp_path / f"rules-{number}.json"),
        )
        for number in range(50)
    ]
    began_s = time.monotonic()
    for watch in watches:
        for number in range(3):
            watch.see(frame(number), tracks(), Shown())  # type: ignore[arg-type]
        watch.close()
    assert time.monotonic() - began_s < 5
    assert writer.num_dropped > 0
    disk.free.set()
    writer.close(10)
    starts = [event for event in told if event.phase == "start"]
    assert len(starts) == 50
    # an event names a picture only where it was taken
    named = {event.snapshot for event in told if event.snapshot is not None}
    assert 0 < len(named) < 50
    assert all((tmp_path / "snapshots" / name).is_file() for name in named)


def test_closing_waits_no_longer_than_it_was_given() -> None:
    writer, disk = Writer(), HangingDisk()
    while writer.put(disk):
        pass
    began_s = time.monotonic()
    writer.close(0.1)
    assert time.monotonic() - began_s < 5
    disk.free.set()


def test_a_memory_is_known_at_once_and_in_the_file_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "state/rules-yard.json"
    file = MemoryFile(path)
    assert file.read() is None
    assert file.note(MEMORY)
    assert file.read() == MEMORY
    assert file.note(MEMORY)  # as long as it is not written
    file.write()
    assert not file.note(MEMORY)  # no disk is worn for what it has
    assert MemoryFile(path).read() == MEMORY


def test_what_a_cut_left_beside_a_memory_is_removed(tmp_path: Path) -> None:
    path, other = tmp_path / "rules-yard.json", tmp_path / ".rules-gate.json.12345678.partial"
    (tmp_path / ".rules-yard.json.12345678.partial").write_bytes(bytes(100))
    other.touch()
    assert MemoryFile(path).read() is None
    assert list(tmp_path.iterdir()) == [other]


@pytest.mark.parametrize("content", [b"", b"{", b'{"parked": 3}', b"\xff\x00", bytes(100)])
def test_a_damaged_memory_is_begun_anew_and_said(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "rules-yard.json"
    path.write_bytes(content)
    assert MemoryFile(path).read() is None
    assert "begun anew" in caplog.text


def test_a_memory_that_cannot_be_written_costs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").write_text("a file where a folder should be")
    file = MemoryFile(tmp_path / "state/rules-yard.json")
    file.note(MEMORY)
    file.write()
    assert "not written" in caplog.text
