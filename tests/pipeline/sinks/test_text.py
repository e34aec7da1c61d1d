# SPDX-License-Identifier: Apache-2.0
"""MOT text and JSON lines."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import SinkError
from pipeline.sinks.jsonl import JsonlWriter
from pipeline.sinks.mot import MotWriter
from pipeline.tracking.tracks import Tracks

Writer = MotWriter | JsonlWriter


def two_tracks() -> Tracks:
    return Tracks(
        xyxy=np.array([[10.126, 20, 30.5, 60.25], [0, 0, 5, 5]], np.float32),
        score=np.array([0.87654, 0.3], np.float32),
        class_id=np.array([2, 7]),
        track_id=np.array([12, 3]),
    )


def mot(path: Path) -> MotWriter:
    return MotWriter(path)


def jsonl(path: Path) -> JsonlWriter:
    return JsonlWriter(path, ["person", "bicycle", "car"])


def write(writer: Writer, frame_index: int, tracks: Tracks) -> None:
    if isinstance(writer, MotWriter):
        writer.write(frame_index, tracks)
    else:
        writer.write(frame_index, frame_index * 40_000_000, tracks)


def test_mot_lines_count_frames_from_one_and_give_left_top_width_height(tmp_path: Path) -> None:
    writer = mot(tmp_path / "a.mot.txt")
    writer.write(0, two_tracks())
    writer.write(1, Tracks.empty())
    writer.write(2, two_tracks())
    writer.finish()
    lines = (tmp_path / "a.mot.txt").read_text().splitlines()
    assert lines == [
        "1,12,10.13,20.00,20.37,40.25,0.8765,2,-1,-1",
        "1,3,0.00,0.00,5.00,5.00,0.3000,7,-1,-1",
        "3,12,10.13,20.00,20.37,40.25,0.8765,2,-1,-1",
        "3,3,0.00,0.00,5.00,5.00,0.3000,7,-1,-1",
    ]


def test_json_lines_hold_every_frame_also_empty_ones(tmp_path: Path) -> None:
    writer = jsonl(tmp_path / "a.jsonl")
    writer.write(0, 0, Tracks.empty())
    writer.write(1, 33_366_666, two_tracks(), predicted=True)
    writer.finish()
    first, second = (tmp_path / "a.jsonl").read_text().splitlines()
    assert json.loads(first) == {"frame": 1, "pts_s": 0.0, "objects": [], "predicted": False}
    assert json.loads(second) == {
        "frame": 2,
        "pts_s": 0.033367,
        "objects": [
            {
                "id": 12,
                "class_id": 2,
                "class": "car",
                "score": 0.8765,
                "xyxy": [10.13, 20.0, 30.5, 60.25],
            },
            {
                "id": 3,
                "class_id": 7,
                "class": "class 7",
                "score": 0.3,
                "xyxy": [0.0, 0.0, 5.0, 5.0],
            },
        ],
        "predicted": True,
    }


def test_keys_stand_in_the_documented_order(tmp_path: Path) -> None:
    writer = jsonl(tmp_path / "a.jsonl")
    writer.write(0, 0, two_tracks())
    writer.finish()
    line = (tmp_path / "a.jsonl").read_text()
    keys = ["frame", "pts_s", "objects", "id", "class_id", "class", "score", "xyxy"]
    places = [line.index(f'"{key}"') for key in [*keys, "predicted"]]
    assert places == sorted(places)


@pytest.mark.parametrize("make", [mot, jsonl])
def test_the_final_name_appears_only_at_the_end(
    tmp_path: Path, make: Callable[[Path], Writer]
) -> None:
    writer = make(tmp_path / "a")
    write(writer, 0, two_tracks())
    assert [path.name for path in tmp_path.iterdir()] == ["a.partial"]
    writer.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("make", [mot, jsonl])
def test_every_frame_is_on_disk_once_written(
    tmp_path: Path, make: Callable[[Path], Writer]
) -> None:
    writer = make(tmp_path / "a")
    write(writer, 0, two_tracks())
    assert (tmp_path / "a.partial").read_text().endswith("\n")
    writer.abandon()
    assert [path.name for path in tmp_path.iterdir()] == ["a.partial"]


@pytest.mark.parametrize("make", [mot, jsonl])
def test_without_frames_the_file_is_empty(tmp_path: Path, make: Callable[[Path], Writer]) -> None:
    make(tmp_path / "a").finish()
    assert (tmp_path / "a").read_bytes() == b""


@pytest.mark.parametrize("make", [mot, jsonl])
def test_a_full_disk_is_one_line_that_names_the_file(
    tmp_path: Path, make: Callable[[Path], Writer]
) -> None:
    (tmp_path / "a.partial").symlink_to("/dev/full")
    writer = make(tmp_path / "a")
    with pytest.raises(SinkError, match=r"/a: cannot be written: no space left .*; free some"):
        write(writer, 0, two_tracks())
    writer.abandon()


@pytest.mark.parametrize("make", [mot, jsonl])
def test_a_missing_folder_is_named(tmp_path: Path, make: Callable[[Path], Writer]) -> None:
    with pytest.raises(SinkError, match=r"gone/a: cannot be written: no such file"):
        make(tmp_path / "gone" / "a")


@pytest.mark.parametrize("make", [mot, jsonl])
def test_a_folder_removed_meanwhile_fails_the_next_line(
    tmp_path: Path, make: Callable[[Path], Writer]
) -> None:
    (tmp_path / "folder").mkdir()
    writer = make(tmp_path / "folder" / "a")
    write(writer, 0, two_tracks())
    shutil.rmtree(tmp_path / "folder")
    with pytest.raises(SinkError, match="keep it while the run lasts"):
        write(writer, 1, two_tracks())
    writer.abandon()


@pytest.mark.parametrize("make", [mot, jsonl])
def test_a_folder_removed_meanwhile_fails_the_finish(
    tmp_path: Path, make: Callable[[Path], Writer]
) -> None:
    (tmp_path / "folder").mkdir()
    writer = make(tmp_path / "folder" / "a")
    (tmp_path / "folder" / "a.partial").unlink()
    with pytest.raises(SinkError, match="keep it while the run lasts"):
        writer.finish()
