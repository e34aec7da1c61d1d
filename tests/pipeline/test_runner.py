"""The failure contract of `pipeline/runner.py`, and what always holds of a run."""

import json
import mmap
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from model.config import ModelConfig
from model.merging import suppress_looks
from pipeline.api import run
from pipeline.config import (
    GateConfig,
    OutputConfig,
    PipelineConfig,
    SourceConfig,
    TrackerKind,
    TrackingConfig,
)
from pipeline.errors import SinkError
from pipeline.job import Job
from pipeline.messages import Tracked
from pipeline.metrics import SKIPPED
from pipeline.sinks.mot import MotWriter
from pipeline.tracking.tracks import Tracks
from tests.pipeline.scenes import (
    Once,
    SquareEngine,
    build_squares,
    count_frames,
    make_card_file,
    make_scene,
    read_jsonl,
)


@pytest.fixture(autouse=True)
def _squares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.job.build_engine", build_squares)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return make_card_file(tmp_path / "card.safetensors")


def make_config(weights: Path, folder: Path, **nodes: Any) -> PipelineConfig:
    output = nodes.pop("output", OutputConfig(directory=folder / "out"))
    return PipelineConfig(
        model=ModelConfig(weights=weights, image_size=160), output=output, **nodes
    )


def run_job(config: PipelineConfig, *sources: Path) -> Job:
    job = Job(config, [str(source) for source in sources])
    job.run()
    return job


def num_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def assert_accounted_for(job: Job) -> None:
    for state in job.streams:
        counters = job.counters[state.source.name]
        assert counters.num_in_flight == 0
        assert counters["decoded"] == (
            counters["tracked"] + counters.num_skipped + counters.num_dropped
        )


def test_every_frame_is_tracked_in_order_though_requests_end_in_any(
    tmp_path: Path, weights: Path
) -> None:
    job = run_job(make_config(weights, tmp_path), make_scene(tmp_path / "a.mp4"))
    lines = read_jsonl(tmp_path / "out/a.jsonl")
    assert [line["frame"] for line in lines] == list(range(1, 31))
    lefts = [line["objects"][0]["xyxy"][0] for line in lines]
    assert lefts == sorted(lefts)
    assert {line["objects"][0]["id"] for line in lines} == {1}
    assert lefts[0] == pytest.approx(10, abs=2)
    assert job.complete
    assert_accounted_for(job)


def test_requests_run_side_by_side(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines: list[SquareEngine] = []

    def build(_: Any, *, image_hw: tuple[int, int], **_more: Any) -> SquareEngine:
        engines.append(SquareEngine(image_hw))
        return engines[-1]

    monkeypatch.setattr("pipeline.job.build_engine", build)
    run_job(make_config(weights, tmp_path), make_scene(tmp_path / "a.mp4"))
    assert 1 < engines[0].most_at_once <= SquareEngine.num_requests


def test_no_pixel_is_copied_between_the_decoder_and_the_engine_nor_a_prediction_after_it(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: list[object] = []

    class Watched(SquareEngine):
        def start(self, images: np.ndarray, predictions: np.ndarray, on_done: Any) -> None:
            places.extend(origin(array) for array in (images, predictions))
            super().start(images, predictions, on_done)

    def watched(rows: np.ndarray, *arguments: Any, **options: Any) -> Any:
        places.append(origin(rows))
        return suppress_looks(rows, *arguments, **options)

    def build(_: Any, *, image_hw: tuple[int, int], **_more: Any) -> SquareEngine:
        return Watched(image_hw)

    monkeypatch.setattr("pipeline.job.build_engine", build)
    monkeypatch.setattr("pipeline.stages.suppress.suppress_looks", watched)
    run_job(make_config(weights, tmp_path), make_scene(tmp_path / "a.mp4"))
    assert len(places) == 3 * 30
    assert all(isinstance(place, mmap.mmap) for place in places)
    assert len({id(place) for place in places}) == 2  # one pool of images, one of predictions


def origin(array: np.ndarray) -> object:
    """Whose memory an array lies in."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base


def test_a_second_run_gives_the_same_tracks_byte_for_byte(tmp_path: Path, weights: Path) -> None:
    clip = make_scene(tmp_path / "a.mp4", num_frames=60)
    texts = []
    for name in ("first", "second"):
        output = OutputConfig(directory=tmp_path / name)
        run_job(make_config(weights, tmp_path, output=output), clip)
        texts.append([(tmp_path / name / f"a{s}").read_bytes() for s in (".jsonl", ".mot.txt")])
    assert texts[0] == texts[1]


def test_a_stream_gives_the_same_tracks_beside_others_as_alone(
    tmp_path: Path, weights: Path
) -> None:
    clips = [make_scene(tmp_path / f"{n}.mp4", speed=2 + n, num_frames=40) for n in range(4)]
    together = OutputConfig(directory=tmp_path / "together")
    run_job(make_config(weights, tmp_path, output=together, parallel=4), *clips)
    for clip in clips:
        alone = OutputConfig(directory=tmp_path / "alone" / clip.stem)
        run_job(make_config(weights, tmp_path, output=alone), clip)
        name = f"{clip.stem}.mot.txt"
        assert (together.directory / name).read_bytes() == (alone.directory / name).read_bytes()


def test_a_stride_skips_detection_and_keeps_every_picture(tmp_path: Path, weights: Path) -> None:
    config = make_config(
        weights,
        tmp_path,
        source=SourceConfig(stride=4),
        output=OutputConfig(directory=tmp_path / "out", save_video=True),
    )
    job = run_job(config, make_scene(tmp_path / "a.mp4", num_frames=30))
    assert job.counters["a"]["tracked"] == 8
    assert job.counters["a"]["skipped_stride"] == 22
    assert [line["frame"] for line in read_jsonl(tmp_path / "out/a.jsonl")] == [
        1, 5, 9, 13, 17, 21, 25, 29,
    ]  # fmt: skip
    assert count_frames(tmp_path / "out/a.mp4") == 30
    assert_accounted_for(job)


@pytest.mark.parametrize("kind", ["bytetrack", "none"])
def test_between_detections_every_frame_has_its_predicted_tracks(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, kind: TrackerKind
) -> None:
    engines: list[SquareEngine] = []

    def build(_: Any, *, image_hw: tuple[int, int], batch: int = 1) -> SquareEngine:
        engines.append(SquareEngine(image_hw, batch))
        return engines[-1]

    monkeypatch.setattr("pipeline.job.build_engine", build)
    config = make_config(
        weights,
        tmp_path,
        source=SourceConfig(detect_every=4),
        tracking=TrackingConfig(kind=kind),
        output=OutputConfig(directory=tmp_path / "out", save_video=True),
    )
    job = run_job(config, make_scene(tmp_path / "a.mp4", num_frames=58))
    counters = job.counters["a"]
    assert (counters["tracked"], counters["skipped_detect_every"]) == (15, 43)
    assert engines[0].num_started == 15
    lines = read_jsonl(tmp_path / "out/a.jsonl")
    assert [line["predicted"] for line in lines] == [bool(n % 4) for n in range(58)]
    assert all(
        [found["id"] for found in line["objects"]] == [int(kind != "none")] for line in lines
    )
    lefts = [line["objects"][0]["xyxy"][0] for line in lines]
    if kind == "none":
        assert lefts == [lefts[n - n % 4] for n in range(58)]
    else:  # by then the filter knows the motion
        assert lefts[20:] == pytest.approx([10 + 3 * n for n in range(20, 58)], abs=2.5)
    assert len((tmp_path / "out/a.mot.txt").read_text().splitlines()) == 58
    assert count_frames(tmp_path / "out/a.mp4") == 58
    assert job.complete
    assert_accounted_for(job)


def test_behind_the_gate_the_detector_rests_while_nothing_moves(
    tmp_path: Path, weights: Path
) -> None:
    config = make_config(
        weights, tmp_path, gate=GateConfig(hold_s=0.2), output=OutputConfig(directory=tmp_path)
    )
    clip = make_scene(tmp_path / "a.mp4", num_frames=110, halts=range(40, 90))
    job = run_job(config, clip)
    counters = job.counters["a"]
    assert 40 <= counters["skipped_gate"] <= 50
    assert counters["tracked"] == 110 - counters["skipped_gate"]
    lines = read_jsonl(tmp_path / "a.jsonl")
    assert {n for n, line in enumerate(lines) if line["predicted"]} <= set(range(40, 90))
    assert [[found["id"] for found in line["objects"]] for line in lines] == [[1]] * 110
    still = [line["objects"][0]["xyxy"][0] for line in lines[40:90]]
    assert still == pytest.approx([10 + 39 * 3] * 50, abs=1)
    assert_accounted_for(job)


def test_gate_and_steps_go_together_with_strides_of_their_own(
    tmp_path: Path, weights: Path
) -> None:
    clip = make_scene(tmp_path / "a.mp4", num_frames=60, halts=range(20, 60))
    gate = GateConfig(hold_s=0.1)
    skipped = {}
    for name, source in (("detect_every", SourceConfig(detect_every=3)),
                         ("stride", SourceConfig(stride=3))):  # fmt: skip
        config = make_config(
            weights, tmp_path, gate=gate, source=source,
            output=OutputConfig(directory=tmp_path / name),
        )  # fmt: skip
        job = run_job(config, clip)
        skipped[name] = [job.counters["a"][counter] for counter in SKIPPED]
        assert_accounted_for(job)
    assert skipped["detect_every"][0] == skipped["stride"][2] == 0
    assert skipped["detect_every"][2] == skipped["stride"][0] == 40
    assert 10 <= skipped["detect_every"][1] == skipped["stride"][1] <= 13


def test_python_is_told_which_tracks_are_predicted(tmp_path: Path, weights: Path) -> None:
    config = make_config(weights, tmp_path, source=SourceConfig(detect_every=2))
    results = list(run(make_scene(tmp_path / "a.mp4", num_frames=6), config=config))
    assert [result.predicted for result in results] == [False, True] * 3


def test_a_limit_ends_a_source_early_and_it_counts_as_complete(
    tmp_path: Path, weights: Path
) -> None:
    config = make_config(weights, tmp_path, source=SourceConfig(limit=7))
    job = run_job(config, make_scene(tmp_path / "a.mp4", num_frames=60))
    assert len(read_jsonl(tmp_path / "out/a.jsonl")) == 7
    assert job.complete


def test_a_broken_file_ends_alone_and_is_named(tmp_path: Path, weights: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(os.urandom(5000))
    clips = [make_scene(tmp_path / f"{n}.mp4") for n in range(2)]
    job = run_job(make_config(weights, tmp_path), clips[0], broken, clips[1])
    assert [state.complete for state in job.streams] == [True, False, True]
    assert "broken.mp4" in job.streams[1].reason
    assert "\n" not in job.streams[1].reason
    assert not job.complete
    assert len(read_jsonl(tmp_path / "out/1.jsonl")) == 30


def test_a_file_that_is_cut_off_is_worked_to_there_and_counts_as_incomplete(
    tmp_path: Path, weights: Path
) -> None:
    whole = make_scene(tmp_path / "a.mp4", num_frames=60, options={"movflags": "faststart"})
    whole.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.6)])
    job = run_job(make_config(weights, tmp_path), whole)
    lines = read_jsonl(tmp_path / "out/a.jsonl")
    assert 5 < len(lines) < 60
    assert not job.complete
    assert "60 frames it declares" in job.streams[0].reason
    assert json.loads((tmp_path / "out/summary.json").read_text())["complete"] is False
    assert_accounted_for(job)


def test_a_sink_that_fails_keeps_its_partial_file_and_other_streams_finish(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FailingWriter(MotWriter):
        def __init__(self, path: Path) -> None:
            self.fails = "bad" in path.name
            super().__init__(path)

        def write(self, frame_index: int, tracks: Tracks) -> None:
            if self.fails and frame_index == 12:
                raise SinkError("bad.mot.txt: cannot be written: no space left on device")
            super().write(frame_index, tracks)

    monkeypatch.setattr("pipeline.stages.write.MotWriter", FailingWriter)
    clips = [make_scene(tmp_path / name) for name in ("bad.mp4", "good.mp4")]
    job = run_job(make_config(weights, tmp_path), *clips)
    assert [state.complete for state in job.streams] == [False, True]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "no space left" in job.streams[0].reason
    assert "bad.mot.txt.partial" in names
    assert "bad.mot.txt" not in names
    assert "good.mot.txt" in names
    assert_accounted_for(job)


def test_an_engine_that_fails_ends_the_run_with_its_reason(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(_: Any, *, image_hw: tuple[int, int], **_more: Any) -> SquareEngine:
        return SquareEngine(image_hw, fail_at=10)

    monkeypatch.setattr("pipeline.job.build_engine", build)
    clips = [make_scene(tmp_path / f"{n}.mp4", num_frames=50) for n in range(3)]
    job = run_job(make_config(weights, tmp_path), *clips)
    assert not any(state.complete for state in job.streams)
    assert "the engine broke" in job.streams[0].reason
    assert (tmp_path / "out/0.jsonl.partial").exists()
    assert_accounted_for(job)


def test_a_stop_finishes_every_output_with_what_was_read(tmp_path: Path, weights: Path) -> None:
    output = OutputConfig(directory=tmp_path / "out", save_video=True)
    clip = make_scene(tmp_path / "a.mp4", num_frames=3000)
    job = Job(make_config(weights, tmp_path, output=output), [str(clip)])
    stop = Once(job.stop)
    job.run(lambda: stop() if job.counters["a"]["tracked"] > 20 else None)
    lines = read_jsonl(tmp_path / "out/a.jsonl")
    assert 20 < len(lines) < 3000
    assert count_frames(tmp_path / "out/a.mp4") == len(lines)
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["complete"] is False
    assert summary["streams"][0]["tracked"] == len(lines)
    assert_accounted_for(job)


def test_a_second_stop_ends_at_once_and_keeps_partial_files(tmp_path: Path, weights: Path) -> None:
    clip = make_scene(tmp_path / "a.mp4", num_frames=3000)
    job = Job(make_config(weights, tmp_path), [str(clip)])

    def stop() -> None:
        if job.counters["a"]["tracked"] > 5:
            job.stop()
            job.stop()

    job.run(stop)
    assert (tmp_path / "out/a.jsonl.partial").exists()
    assert not (tmp_path / "out/a.jsonl").exists()
    assert not job.complete
    assert_accounted_for(job)


def test_a_stream_whose_sink_is_slow_holds_up_no_other(tmp_path: Path, weights: Path) -> None:
    clips = [make_scene(tmp_path / f"{name}.mp4", num_frames=80) for name in ("slow", "fast")]
    done = threading.Event()
    seen = {"slow": 0, "fast": 0}

    def take(frame: Tracked, __: Tracks) -> None:
        if frame.stream == "slow":
            assert done.wait(30), "the fast stream waited for the slow one"
        seen[frame.stream] += 1
        if seen["fast"] == 80:
            done.set()

    config = make_config(weights, tmp_path)
    job = Job(config, [str(clip) for clip in clips], take=take)
    job.run()
    assert job.complete, [state.reason for state in job.streams]
    assert seen == {"slow": 80, "fast": 80}


def test_many_small_files_run_through_and_leave_nothing_behind(
    tmp_path: Path, weights: Path
) -> None:
    clip = make_scene(tmp_path / "seed.mp4", num_frames=2)
    (tmp_path / "many").mkdir()
    for number in range(60):
        (tmp_path / f"many/{number}.mp4").write_bytes(clip.read_bytes())
    config = make_config(weights, tmp_path, parallel=4)
    run_job(config, clip)
    threads, descriptors = threading.active_count(), num_descriptors()
    output = OutputConfig(directory=tmp_path / "out2")
    job = run_job(config.model_copy(update={"output": output}), tmp_path / "many")
    assert job.complete
    assert sum(counters["tracked"] for counters in job.counters.values()) == 120
    assert threading.active_count() == threads
    assert num_descriptors() <= descriptors + 2


def test_a_stream_may_be_called_like_a_part_of_the_trunk(tmp_path: Path, weights: Path) -> None:
    clips = [make_scene(tmp_path / "predictions.mp4", num_frames=5)]
    clips += [make_scene(tmp_path / f"{name}.mp4", num_frames=60) for name in ("infer", "last")]
    job = run_job(make_config(weights, tmp_path), *clips)
    assert job.complete, [state.reason for state in job.streams]


def test_engines_of_many_shapes_do_not_pile_up(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_now = most = 0

    class CountedEngine(SquareEngine):
        def __init__(self, image_hw: tuple[int, int]) -> None:
            nonlocal open_now, most
            super().__init__(image_hw)
            open_now += 1
            most = max(most, open_now)

        def close(self) -> None:
            nonlocal open_now
            super().close()
            open_now -= 1

    def build(_: Any, *, image_hw: tuple[int, int], **_more: Any) -> SquareEngine:
        return CountedEngine(image_hw)

    monkeypatch.setattr("pipeline.job.build_engine", build)
    clips = [
        make_scene(tmp_path / f"{number}.mp4", num_frames=4, height=128 + 64 * number)
        for number in range(12)
    ]
    config = make_config(weights, tmp_path, parallel=1)
    config = config.model_copy(
        update={"model": config.model.model_copy(update={"image_size": 960})}
    )
    job = run_job(config, *clips)
    assert job.complete, [state.reason for state in job.streams]
    assert len(job.supervisor.engines) == 12
    assert most <= 8
    assert open_now == 0


def test_single_images_share_one_engine(tmp_path: Path, weights: Path) -> None:
    for number in range(3):
        Image.new("RGB", (100 + 90 * number, 120)).save(tmp_path / f"{number}.png")
    job = run_job(make_config(weights, tmp_path), *sorted(tmp_path.glob("*.png")))
    assert job.complete
    assert [engine.input_shape for engine in job.supervisor.engines] == [(1, 160, 160, 3)]


def test_a_folder_of_images_is_one_stream_in_natural_order(tmp_path: Path, weights: Path) -> None:
    folder = tmp_path / "shots"
    folder.mkdir()
    for number in range(1, 12):
        picture = np.full((120 + number, 200, 3), 20, np.uint8)
        picture[40:80, 10 * number : 10 * number + 40] = 250
        Image.fromarray(picture).save(folder / f"shot{number}.png")
    job = run_job(make_config(weights, tmp_path), folder)
    lines = read_jsonl(tmp_path / "out/shots.jsonl")
    lefts = [line["objects"][0]["xyxy"][0] for line in lines]
    assert lefts == sorted(lefts)
    assert len(lines) == 11
    assert lines[3]["pts_s"] == pytest.approx(3 / 25)
    assert job.complete


@pytest.mark.parametrize(
    ("width", "height", "number"),
    [(320, 192, 6), (1280, 720, 1)],  # untold: BT.601 where small, BT.709 where HD
)
def test_annotated_video_keeps_the_matrix_of_its_source(
    tmp_path: Path, weights: Path, width: int, height: int, number: int
) -> None:
    output = OutputConfig(directory=tmp_path / "out", save_video=True)
    clip = make_scene(tmp_path / "a.mp4", num_frames=3, width=width, height=height)
    run_job(make_config(weights, tmp_path, output=output), clip)
    with av.open(str(tmp_path / "out/a.mp4")) as container:
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_range) == (number, 1)
        assert (frame.height, frame.width) == (height, width)


def test_an_image_gives_its_boxes_and_an_annotated_picture(tmp_path: Path, weights: Path) -> None:
    picture = np.full((150, 250, 3), 20, np.uint8)
    picture[50:90, 100:140] = 250
    Image.fromarray(picture).save(tmp_path / "one.png")
    output = OutputConfig(directory=tmp_path / "out", save_video=True)
    job = run_job(make_config(weights, tmp_path, output=output), tmp_path / "one.png")
    (line,) = read_jsonl(tmp_path / "out/one.jsonl")
    assert line["objects"][0]["xyxy"] == pytest.approx([100, 50, 140, 90], abs=3)
    drawn = np.asarray(Image.open(tmp_path / "out/one.png"))
    assert drawn.shape == picture.shape
    assert (drawn != picture).any()
    assert job.complete


def test_a_file_that_is_no_image_is_named_with_its_place(tmp_path: Path, weights: Path) -> None:
    folder = tmp_path / "shots"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (64, 64)).save(folder / f"{number}.png")
    (folder / "1.png").write_bytes(b"no picture at all")
    job = run_job(make_config(weights, tmp_path), folder)
    assert job.counters["shots"]["decoded"] == 2
    assert "1 of 3 packets could not be decoded; the first is number 2" in job.streams[0].reason


def test_without_a_tracker_boxes_have_no_identity(tmp_path: Path, weights: Path) -> None:
    config = make_config(weights, tmp_path, tracking=TrackingConfig(kind="none"))
    run_job(config, make_scene(tmp_path / "a.mp4"))
    ids = {
        object_["id"]
        for line in read_jsonl(tmp_path / "out/a.jsonl")
        for object_ in line["objects"]
    }
    assert ids == {0}


def test_the_window_bounds_the_frames_on_their_way(tmp_path: Path, weights: Path) -> None:
    most = 0

    def take(_: Tracked, __: Tracks) -> None:
        time.sleep(0.002)

    config = make_config(weights, tmp_path, window=4)
    clip = make_scene(tmp_path / "a.mp4", num_frames=100)
    job = Job(config, [str(clip)], take=take)

    def watch() -> None:
        nonlocal most
        most = max(most, job.counters["a"].num_in_flight)

    job.run(watch)
    assert job.complete
    assert most <= 4 + 1  # and the one that is being scaled


def test_frames_that_wait_for_a_result_slot_start_when_one_comes_free(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every request is done and every result waits to be read when the last frames come."""

    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(0.03)
        return suppress_looks(*arguments, **options)

    monkeypatch.setattr("pipeline.stages.suppress.suppress_looks", slow)
    job = run_job(
        make_config(weights, tmp_path, window=16), make_scene(tmp_path / "a.mp4", num_frames=20)
    )
    assert job.complete
    assert job.counters["a"]["tracked"] == 20


def test_the_interpreter_switches_threads_quickly_during_a_run_and_as_before_after_it(
    tmp_path: Path, weights: Path
) -> None:
    before, during = sys.getswitchinterval(), set[float]()
    film = make_scene(tmp_path / "a.mp4", num_frames=20)
    job = Job(make_config(weights, tmp_path), [str(film)])
    job.run(lambda: during.add(sys.getswitchinterval()))
    assert job.complete
    assert during == {0.0005}
    assert sys.getswitchinterval() == before
