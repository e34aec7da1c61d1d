"""Slices through the whole pipeline: what the whole picture alone loses, and the same tracks."""

import logging
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from model.config import ModelConfig, load_settings
from model.slicing import MOST_LOOKS
from pipeline.cli import RunOptions
from pipeline.config import OutputConfig, PipelineConfig, SlicesConfig, TrackingConfig
from pipeline.job import Job
from tests.pipeline.far_side import FarThread, KeyRing
from tests.pipeline.scenes import build_squares, read_jsonl

NUM_FRAMES = 40
WIDTH, HEIGHT, NEAR, FAR = 640, 384, 60, 14


pytestmark = pytest.mark.usefixtures("squares")


@pytest.fixture(scope="module")
def weights(card_file: Path) -> Path:
    return card_file


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A near square that crosses all tiles, and a far one of 3.5 pixels on a canvas of 160."""
    path = tmp_path_factory.mktemp("clip") / "yard.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"preset": "veryfast", "crf": "8", "g": "10"}
        for index in range(NUM_FRAMES):
            picture = np.full((HEIGHT, WIDTH, 3), 20, np.uint8)
            near, far = (200 + 4 * index, 150), (500, 300 - index)
            for (left, top), side in ((near, NEAR), (far, FAR)):
                picture[top : top + side, left : left + side] = 250
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def make_config(weights: Path, folder: Path, budget: int | None, **nodes: Any) -> PipelineConfig:
    return PipelineConfig(
        model=ModelConfig(weights=weights, image_size=160),
        slices=budget and SlicesConfig(budget=budget),
        output=OutputConfig(directory=folder),
        **nodes,
    )


def run_job(config: PipelineConfig, source: Path) -> Job:
    job = Job(config, [str(source)])
    job.run()
    assert job.complete, job.streams[0].reason + job.streams[0].trace
    return job


def boxes(folder: Path) -> list[list[list[float]]]:
    return [
        sorted(each["xyxy"] for each in line["objects"])
        for line in read_jsonl(folder / "yard.jsonl")
    ]


@pytest.fixture(scope="module")
def expected(clip: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What threads find with slices, every frame on its own."""
    folder = tmp_path_factory.mktemp("threads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.job.build_engine", build_squares)
        job = run_job(make_config(weights, folder, 10, tracking=NO_TRACKER), clip)
    assert job.summary()["model"]["input_shapes"] == [[10, 96, 160, 3]]
    return folder


NO_TRACKER = TrackingConfig(kind="none")


def test_slices_find_a_far_object_that_the_whole_picture_loses(
    tmp_path: Path, weights: Path, clip: Path, expected: Path
) -> None:
    run_job(make_config(weights, tmp_path, None, tracking=NO_TRACKER), clip)
    assert [len(found) for found in boxes(tmp_path)] == [1] * NUM_FRAMES
    assert [len(found) for found in boxes(expected)] == [2] * NUM_FRAMES


def test_every_object_is_found_once_and_where_it_is_whatever_tiles_it_crosses(
    expected: Path,
) -> None:
    for index, (near, far) in enumerate(boxes(expected)):
        left, top = 200 + 4 * index, 150
        np.testing.assert_allclose(near, [left, top, left + NEAR, top + NEAR], atol=4)
        top = 300 - index
        np.testing.assert_allclose(far, [500, top, 500 + FAR, top + FAR], atol=2.5)


def test_slices_give_the_tracks_of_threads_byte_for_byte_through_processes(
    tmp_path: Path, weights: Path, clip: Path, expected: Path
) -> None:
    config = make_config(weights, tmp_path, 10, tracking=NO_TRACKER, placement="processes")
    run_job(config, clip)
    for name in ("yard.jsonl", "yard.mot.txt"):
        assert (tmp_path / name).read_bytes() == (expected / name).read_bytes()


def test_slices_give_the_tracks_of_threads_byte_for_byte_through_a_second_host(
    tmp_path: Path, weights: Path, clip: Path, expected: Path
) -> None:
    ring = KeyRing.make(tmp_path / "keys")
    with FarThread(ring.worker(weights)) as far:
        remote = ring.remote(far.address)
        config = make_config(weights, tmp_path / "out", 10, tracking=NO_TRACKER, remote=remote)
        job = run_job(config, clip)
    assert job.summary()["model"]["input_shapes"] == [[10, 96, 160, 3]]
    for name in ("yard.jsonl", "yard.mot.txt"):
        assert (tmp_path / "out" / name).read_bytes() == (expected / name).read_bytes()


@pytest.mark.parametrize(("budget", "looks"), [(5, 5), (6, 5), (17, 17)])
def test_a_run_says_once_where_it_uses_fewer_looks(
    budget: int,
    looks: int,
    tmp_path: Path,
    weights: Path,
    clip: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        job = run_job(make_config(weights, tmp_path, budget), clip)
    assert job.summary()["model"]["input_shapes"] == [[looks, 96, 160, 3]]
    said = [text for text in caplog.messages if "slices.budget" in text]
    told = f"yard: pictures of 640x384 get {looks} of {budget} looks"
    assert [text.startswith(told) for text in said] == [True] * (looks < budget)


def test_pictures_of_all_sizes_get_as_many_looks_as_show_more(
    tmp_path: Path, weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "yard").mkdir()
    sizes = [(384, 640), (96, 160), (152, 256), (96, 160), (384, 640)] * 3
    for number, size in enumerate(sizes):
        picture = np.full((*size, 3), 20, np.uint8)
        picture[20:50, 30:60] = 250
        Image.fromarray(picture).save(tmp_path / f"yard/{number:02d}.bmp")
    config = make_config(weights, tmp_path / "out", 10, tracking=NO_TRACKER)
    with caplog.at_level(logging.WARNING):
        job = run_job(config, tmp_path / "yard")
    shapes = {shape[0] for shape in job.summary()["model"]["input_shapes"]}
    assert shapes == {1, 5, 10}
    found = boxes(tmp_path / "out")
    assert len(found) == len(sizes)
    for objects in found:
        np.testing.assert_allclose(objects, [[30, 20, 60, 50]], atol=4)
    assert sum("slices.budget" in text for text in caplog.messages) == 1


def test_without_slices_there_is_one_look(tmp_path: Path, weights: Path, clip: Path) -> None:
    job = run_job(make_config(weights, tmp_path, None), clip)
    assert job.summary()["model"]["input_shapes"] == [[1, 96, 160, 3]]


def test_the_option_is_the_budget() -> None:
    overrides = RunOptions(slices=5).overrides()
    settings = load_settings(PipelineConfig, None, overrides)
    assert settings.slices == SlicesConfig(budget=5, overlap=0.2)


@pytest.mark.parametrize("budget", [-1, 0, 1, MOST_LOOKS + 1])
def test_a_budget_is_bounded(budget: int) -> None:
    with pytest.raises(ValidationError):
        SlicesConfig(budget=budget)
