# SPDX-License-Identifier: Apache-2.0
"""What one camera's own settings do in a whole run."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from model.config import ModelConfig
from model.errors import ConfigError
from pipeline.cameras import CameraConfig
from pipeline.config import OutputConfig, PipelineConfig, SlicesConfig
from pipeline.decoding.inputs import camera_source
from pipeline.job import Job
from tests.pipeline.scenes import make_scene, read_jsonl

pytestmark = pytest.mark.usefixtures("squares")


@pytest.fixture
def run(tmp_path: Path, card_file: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    clip = make_scene(tmp_path / "clip.mp4")

    def run(settings: dict[str, Any] | None = None, **more: Any) -> tuple[Job, list[Any]]:
        camera = CameraConfig.model_validate(settings or {})
        source = camera_source("yard", str(clip), camera)
        monkeypatch.setattr("pipeline.job.find_sources", lambda _: (source,))
        config = PipelineConfig(
            model=ModelConfig(weights=card_file, image_size=160),
            output=OutputConfig(directory=tmp_path / "out", save_video=True, overwrite=True),
            **more,
        )
        job = Job(config, ["yard"])
        job.run()
        assert job.complete, job.streams[0].fault
        counters = job.counters["yard"]
        assert counters["decoded"] == 30 == counters["tracked"] + counters.num_skipped
        return job, read_jsonl(tmp_path / "out/yard.jsonl")

    return run


def boxes(lines: list[Any]) -> np.ndarray:
    return np.array([line["objects"][0]["xyxy"] for line in lines])


def test_frames_beyond_the_rate_are_skipped_and_counted(run: Any) -> None:
    job, lines = run({"max_fps": 12.5})
    assert job.counters["yard"]["skipped_max_fps"] == 15
    assert [line["frame"] for line in lines] == list(range(1, 31, 2))
    assert {thing["id"] for line in lines for thing in line["objects"]} == {1}


@pytest.mark.parametrize("slices", [None, SlicesConfig(budget=3)])
def test_boxes_found_in_a_region_lie_where_those_of_the_whole_picture_do(
    run: Any, slices: SlicesConfig | None
) -> None:
    whole = boxes(run()[1])
    _, lines = run({"region": [0.02, 0.21, 0.77, 0.83]}, slices=slices)
    assert np.abs(boxes(lines) - whole).max() <= 2


def test_what_lies_outside_the_region_is_not_found(run: Any) -> None:
    _, lines = run({"region": [0, 0.6, 1, 1]})
    assert not any(line["objects"] for line in lines)


@pytest.mark.parametrize("turn_deg", [90, 180, 270])
def test_a_region_is_one_of_the_picture_turned_upright(run: Any, turn_deg: int) -> None:
    corners = boxes(run()[1]).reshape(-1, 2, 2)
    _, lines = run({"rotate_deg": turn_deg})
    turned = boxes(lines).reshape(-1, 2, 2)
    x, y = corners[..., 0], corners[..., 1]
    expected = {90: (192 - y, x), 180: (320 - x, 192 - y), 270: (y, 320 - x)}[turn_deg]
    middles = np.stack([side.mean(axis=1) for side in expected], axis=1)
    assert np.abs(turned.mean(axis=1) - middles).max() <= 2
    left, top = (turned.mean(axis=1).min(axis=0) - 40) / ((192, 320) if turn_deg % 180 else
                                                          (320, 192))  # fmt: skip
    _, lines = run({"rotate_deg": turn_deg, "region": [max(0, left), max(0, top), 1, 1]})
    assert np.abs(boxes(lines) - turned.reshape(-1, 4)).max() <= 2


def test_what_no_one_may_see_is_black_in_the_video(run: Any, tmp_path: Path) -> None:
    lower_half = [(0, 0.5), (1, 0.5), (1, 1), (0, 1)]
    run({"privacy": [lower_half]})
    with av.open(str(tmp_path / "out/yard.mp4")) as video:
        pictures = [frame.to_ndarray(format="gray") for frame in video.decode(video=0)]
    assert all(picture[80:96, :].max() > 150 for picture in pictures)
    # below the square's frame and label, which are drawn afterwards
    assert max(int(picture[112:].max()) for picture in pictures) < 12


def test_boxes_are_left_out_by_score_and_class(run: Any) -> None:
    assert not any(line["objects"] for line in run({"min_score": 0.95})[1])
    assert not any(line["objects"] for line in run({"classes": ["person"]})[1])
    assert not any(line["objects"] for line in run({"scores": {"square": 0.95}})[1])
    _, lines = run({"classes": ["square"], "min_score": 0.95, "scores": {"square": 0.5}})
    assert all(line["objects"][0]["score"] == pytest.approx(0.9) for line in lines)


def test_a_camera_may_look_for_a_class_that_others_do_not(run: Any) -> None:
    _, lines = run({"classes": ["square"]}, classes=("person",))
    assert all(line["objects"] for line in lines)


def test_a_class_that_the_model_does_not_know_is_refused_before_anything_starts(
    run: Any, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="yard: classes: the model knows no cat"):
        run({"classes": ["cat"]})
    assert not list((tmp_path / "out").glob("yard*"))
