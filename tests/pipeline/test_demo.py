# SPDX-License-Identifier: Apache-2.0
"""The demo: a street that is drawn alike every time, and what is said about it."""

from pathlib import Path

import numpy as np
import pytest

import sightline
from model import load
from pipeline.demo.street import HEIGHT, PX_A_METRE, RATE, TRAFFIC, WIDTH, pictures, write_street
from tests.model.builders import make_released
from tests.pipeline.scenes import count_frames, make_card_file, make_scene


def test_the_street_is_drawn_alike_every_time() -> None:
    first, again = list(pictures(3)), list(pictures(3))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert first[0].shape == (HEIGHT, WIDTH, 3)


def test_what_drives_is_where_the_table_says() -> None:
    """Two pictures differ where something moved, by much more than their noise."""
    frames = list(pictures(21))
    moved = np.abs(frames[20].astype(int) - frames[0]).max(axis=2) > 40
    for mover in TRAFFIC:
        front_m = mover.start_m + mover.speed_mps * 20 / RATE
        back = 0.5 if mover.speed_mps < 0 else -0.5
        column = round((front_m + back) * PX_A_METRE)
        rows = slice(mover.ground_px - 90, mover.ground_px)
        if 60 < column < WIDTH - 60:
            assert moved[rows, column - 60 : column + 60].any(), mover
    assert not moved[:200].any()  # house fronts do not move


def test_the_clip_has_the_frames_it_should(tmp_path: Path) -> None:
    assert count_frames(write_street(tmp_path / "street.mp4", seconds=0.4)) == 10


@pytest.mark.slow
@pytest.mark.needs_data
def test_a_detector_of_real_pictures_finds_people_and_cars_in_the_street(
    coco_weights: Path,
) -> None:
    """2026-11-21: of 200 pictures persons in 179 (best .88), cars in 175, the bus in 70."""
    detector = load(coco_weights, num_threads=1)
    found: set[str] = set()
    for number, picture in enumerate(pictures(51)):
        if number in (40, 50):
            sure = detector(picture, min_score=0.5)
            found |= {detector.classes[class_id] for class_id in sure.class_id}
    assert {"person", "car"} <= found


@pytest.fixture
def default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.setenv("SIGHTLINE_MODELS", str(tmp_path / "models"))
    make_card_file(tmp_path / "models/street-t.safetensors", released=make_released())
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("squares", "default")
def test_a_clip_of_one_s_own_is_annotated_and_what_was_found_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = make_scene(tmp_path / "walk.mp4")
    for _ in range(2):  # what the first demo left is replaced
        assert sightline.main(["demo", str(clip)]) == 0
        printed = capsys.readouterr().out
        assert "found: square, 1 track, in 30 of 30 frames, best score 0.90" in printed
        assert "out/demo/walk.mp4: the annotated video" in printed
    assert count_frames(tmp_path / "out/demo/walk.mp4") == 30


@pytest.mark.usefixtures("squares", "default")
def test_without_a_clip_a_street_is_drawn_and_nothing_found_is_said_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "pipeline.demo.street.write_street", lambda path: write_street(path, seconds=0.4)
    )
    assert sightline.main(["demo"]) == 0
    printed = capsys.readouterr().out
    assert "drawn: 2 person, 1 bus, 2 car" in printed
    assert "found: nothing in 10 frames" in printed
    assert count_frames(tmp_path / "out/demo/street.mp4") == 10


def test_without_a_model_nothing_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    assert sightline.main(["demo"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "no weights: pass --model FILE" in printed.err
