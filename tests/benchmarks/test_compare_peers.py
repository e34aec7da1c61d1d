# SPDX-License-Identifier: Apache-2.0
"""What of the comparison with peers can be tested without them."""

import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from model.config import Suppression
from model.importing import import_weights
from model.suppression import suppress
from model.weights import load_detector, read_tensors
from tests.pipeline.scenes import make_scene

HERE = Path(__file__).parent


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The programs import their neighbours by bare names, as programs do."""
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.syspath_prepend(HERE / "peers")
    return importlib.import_module


@pytest.fixture
def compare_peers(programs: Any) -> ModuleType:
    return programs("compare_peers")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scene(tmp_path_factory.mktemp("clip") / "scene.mp4", num_frames=20)


@pytest.fixture(scope="module")
def biased(clip: Path) -> Path:
    """Random weights of size T that should find 12 boxes in a frame of the scene."""
    output = clip.with_name("t.safetensors")
    command = ["--scale", "T", "--clip", clip, "--output", output]
    command += ["--boxes", "12", "--image-size", "320"]
    subprocess.run(
        [sys.executable, HERE / "peers/biased.py", *map(str, command)], check=True, timeout=120
    )
    return output


def test_biased_weights_find_the_wanted_number_of_boxes(
    biased: Path, clip: Path, programs: Any
) -> None:
    detector, card = load_detector(biased)
    assert (card.scale, card.box_groups, len(card.classes)) == ("T", 1, 80)
    rows = detector(programs("biased").images_of(clip, 320, count=2)).detach().numpy()
    found = [suppress(row, Suppression(min_score=0.25, max_iou=0.7)) for row in rows]
    assert sum(map(len, found)) / len(found) == pytest.approx(12, rel=0.25)


def test_ultralytics_is_given_the_same_weights(biased: Path, programs: Any, tmp_path: Path) -> None:
    programs("official").save_official(biased, tmp_path / "official.safetensors")
    import_weights(tmp_path / "official.safetensors", tmp_path / "back.safetensors")
    before, after = read_tensors(biased), read_tensors(tmp_path / "back.safetensors")
    assert before.keys() == after.keys()
    assert all(before[name].equal(after[name]) for name in before)


@pytest.mark.parametrize("video", [False, True], ids=["tracks", "video"])
def test_sightlines_side_measures_a_run(
    biased: Path, clip: Path, tmp_path: Path, video: bool
) -> None:
    command = ["--clip", clip, "--model", biased, "--image-size", 320, "--warm-up", 5]
    if video:
        command += ["--save-video", tmp_path]
    done = subprocess.run(
        [sys.executable, HERE / "peers/sightline_side.py", *map(str, command)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["frames"] == 20
    assert found["input_hw"] == [192, 320]
    assert found["frames_per_s"] > 0 < found["cpu_ms"]
    assert found["boxes"] >= found["identities"] > 0
    assert (tmp_path / "scene.mp4").exists() == video


def test_the_meter_leaves_the_warm_up_out(programs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    meter_module = programs("meter")
    now = {"wall": 0.0, "cpu": 0.0}
    monkeypatch.setattr(meter_module.time, "perf_counter", lambda: now["wall"])
    monkeypatch.setattr(meter_module.os, "times", lambda: (now["cpu"], 0.0, 0.0, 0.0, 0.0))
    meter = meter_module.Meter(2)
    for wall_s, cpu_s in ((9.0, 5.0), (1.0, 1.0), (0.5, 0.25), (0.5, 0.75)):
        now["wall"] += wall_s
        now["cpu"] += cpu_s
        meter.frame([1, 7], {"decode": wall_s * 1000})
    assert meter.result() == {
        "frames": 4,
        "frames_per_s": 2.0,
        "cpu_ms": 500.0,
        "steps_ms": {"decode": 500.0},
        "boxes": 8,
        "identities": 2,
    }


def test_the_meter_may_skip_frames_and_wants_some_after_the_warm_up(programs: Any) -> None:
    meter = programs("meter").Meter(3)
    for frames in (0, 2, 5, 5):
        meter.mark(frames)
    with pytest.raises(SystemExit, match="5 frames leave nothing after 3"):
        meter.result()
    meter.mark(9)
    assert meter.result()["frames"] == 9


def test_ratios_are_taken_within_a_turn(compare_peers: ModuleType) -> None:
    def run(rate: float, boxes: int = 100, frames: int = 50) -> dict[str, Any]:
        return {
            "frames_per_s": rate,
            "cpu_ms": 1000 / rate,
            "boxes": boxes,
            "identities": 4,
            "frames": frames,
            "steps_ms": {"decode": rate},
        }

    turns = [
        {"sightline": run(20), "other": run(10), "lazy": run(40, 40, 49)},
        {"sightline": run(60), "other": run(20), "lazy": run(60, 40, 49)},
        {"sightline": run(10), "other": run(2), "lazy": run(20, 40, 49)},
    ]
    found = compare_peers.compared(turns)
    assert found["sides"]["sightline"]["frames_per_s"]["median"] == 20
    assert found["sides"]["other"]["steps_ms"] == {"decode": 10}
    assert found["sightline_against"]["other"]["frames_per_s"]["median"] == 3
    assert found["sightline_against"]["other"]["cpu_ms"]["median"] == pytest.approx(1 / 3, abs=1e-3)
    assert found["agreement"]["other"]["agrees"]
    assert not found["agreement"]["lazy"]["agrees"]


def test_sides_that_are_not_set_up_are_named(compare_peers: ModuleType, tmp_path: Path) -> None:
    options = argparse.Namespace(
        peers=tmp_path, weights=Path("w"), weights_int8=None, calibration=None
    )
    left_out: dict[str, str] = {}
    models = {
        precision: dict(compare_peers.models_of(precision, options, left_out))
        for precision in compare_peers.PRECISIONS
    }
    assert models["default"].keys() == {"sightline", "our_parts_in_one_thread"}
    assert models["int8"] == {}
    assert left_out["tutorial_square, default"] == "not set up: ultralytics"
    assert left_out["sightline, int8"] == "no --weights-int8"
    cases = list(compare_peers.cases_of(models, ["tracks", "video"]))
    assert [(case.precision, case.output) for case in cases] == [("default", "tracks")]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--clip": "nowhere.mp4"}, "nowhere.mp4: no such file"),
        ({"--frames": "30"}, "--frames must be more than the 30 of --warm-up"),
        ({"--outputs": "film"}, "invalid choice: 'film'"),
    ],
    ids=["file", "frames", "output"],
)
def test_a_wrong_call_says_what_is_wrong(
    compare_peers: ModuleType,
    changed: dict[str, str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "there"
    file.touch()
    call = {"--peers": str(tmp_path), "--weights": str(file), "--clip": str(file)} | changed
    words = [word for pair in call.items() for word in pair]
    monkeypatch.setattr(sys, "argv", ["compare_peers.py", *words])
    with pytest.raises(SystemExit) as ended:
        compare_peers.parse()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
