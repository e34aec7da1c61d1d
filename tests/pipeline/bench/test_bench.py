"""`sightline bench`: figures that hold together, and faults told in a line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sightline
from model.config import ModelConfig
from model.cuda.plan import GpuWanted
from model.engines.busy import keep_busy
from pipeline.bench.share import measure, slow_part, through_pipeline
from pipeline.bench.streams import most_streams, run_streams
from pipeline.bench.surroundings import percentile, spread
from pipeline.config import GpuConfig, OutputConfig, PipelineConfig, SourceConfig
from pipeline.decoding.inputs import Source, find_sources
from pipeline.errors import PipelineError
from tests.pipeline.planned import NOTED, PlannedGpu, build_planned, make_clip
from tests.pipeline.scenes import SquareEngine, build_squares, make_card_file, make_scene


@pytest.fixture(autouse=True)
def _squares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.job.build_engine", build_squares)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def weights(folder: Path) -> Path:
    return make_card_file(folder / "card.safetensors")


@pytest.fixture(scope="module")
def clip(folder: Path) -> Source:
    return find_sources([str(make_scene(folder / "walk.mp4", num_frames=150))])[0]


def make_config(weights: Path, folder: Path, **nodes: object) -> PipelineConfig:
    return PipelineConfig(
        model=ModelConfig(weights=weights, image_size=160),
        source=SourceConfig(limit=120),
        **{"output": OutputConfig(directory=folder / "unused"), **nodes},
    )


def test_the_share_is_the_rate_over_the_bound_of_the_stages(
    clip: Source, weights: Path, folder: Path
) -> None:
    result = measure(make_config(weights, folder), clip, runs=1)
    alone = {name: times["median"] for name, times in result["alone_cpu_ms"].items()}
    assert list(alone) == ["decode", "scale", "infer", "suppress", "track", "write tracks"]
    assert all(milliseconds > 0 for milliseconds in alone.values())
    bound, pipeline = result["bound"], result["pipeline"]
    assert bound["cpu_ms"]["median"] == pytest.approx(sum(alone.values()), abs=0.01)
    in_bound = result["cores"] / bound["cpu_ms"]["median"] * 1000
    assert bound["frames_per_s"]["median"] == pytest.approx(in_bound, rel=0.01)
    share = pipeline["frames_per_s"]["median"] / bound["frames_per_s"]["median"]
    assert pipeline["share_of_bound"]["median"] == pytest.approx(share, abs=0.01)
    assert set(result["stages_ms"]) >= {"source", "decode", "infer", "suppress", "track"}
    assert not (folder / "unused").exists()


def test_an_engine_for_a_gpu_is_built_and_asked_as_a_run_does(
    weights: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[GpuWanted | None, tuple[int, int]]] = []

    def build(config: ModelConfig, *, image_hw: tuple[int, int], **more: Any) -> Any:
        asked.append((more["gpu"], image_hw))
        return build_planned(config, image_hw=image_hw, **more)

    monkeypatch.setattr("pipeline.job.build_engine", build)
    monkeypatch.setattr("pipeline.engines.choose_engine", lambda *_: "cuda")
    film = find_sources([str(make_clip(folder / "planned.mp4", 130))])[0]
    gpu = GpuConfig(in_flight=1, batch_sizes=(4,), window_ms=1.5)
    num_missed = NOTED.num_missed
    result = measure(make_config(weights, folder, gpu=gpu), film, runs=1)
    assert result["model"]["engine"] == PlannedGpu.name
    assert result["alone_cpu_ms"]["infer"]["median"] > 0
    (alone, whole) = asked  # the stages' own, and the run's
    assert alone == whole
    assert alone[0] is not None
    assert (alone[0].batch_sizes, alone[0].window_ms) == ((4,), 1.5)
    assert NOTED.num_missed == num_missed  # every picture lay where the engine reads by itself
    assert NOTED.registered == {}


def test_with_video_its_stages_are_in_the_bound(clip: Source, weights: Path, folder: Path) -> None:
    output = OutputConfig(directory=folder / "unused", save_video=True)
    result = measure(make_config(weights, folder, output=output), clip, runs=1)
    assert {"picture", "draw", "encode"} <= set(result["alone_cpu_ms"])
    assert {"annotate", "write-video"} <= set(result["stages_ms"])


def test_other_processes_time_is_not_claimed(clip: Source, weights: Path, folder: Path) -> None:
    result = measure(make_config(weights, folder, placement="processes"), clip, runs=1)
    assert result["pipeline"]["cpu_ms"] is None
    assert result["pipeline"]["share_of_bound"]["median"] > 0


def test_a_clip_that_is_over_before_it_is_warm_is_refused(weights: Path, folder: Path) -> None:
    short = find_sources([str(make_scene(folder / "short.mp4", num_frames=40))])[0]
    with pytest.raises(PipelineError, match="too short: 40 frames"):
        through_pipeline(make_config(weights, folder), short, folder / "out")


def test_a_run_that_fails_is_not_measured(weights: Path, folder: Path, clip: Source) -> None:
    cut = folder / "cut.mp4"
    content = Path(clip.location).read_bytes()
    cut.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(PipelineError):
        through_pipeline(
            make_config(weights, folder), find_sources([str(cut)])[0], folder / "out-cut"
        )


@pytest.mark.parametrize(
    ("cores", "work", "said"),
    [
        (0.97, 1.0, "all cores are at work (97%): infer is 80%"),
        (0.6, 9.5, "decode works 95% of the time"),
        (0.6, 1.0, "no stage is busy all the time, decode most (10%)"),
    ],
)
def test_the_slow_part_is_named(cores: float, work: float, said: str) -> None:
    result = {
        "alone_cpu_ms": {"decode": {"median": 2.0}, "infer": {"median": 8.0}},
        "bound": {"cpu_ms": {"median": 10.0}},
        "pipeline": {"frames_per_s": {"median": 100.0}, "share_of_cores": {"median": cores}},
        "stages_ms": {"decode": {"work": work}, "infer": {"work": 0.5}},
    }
    assert slow_part(result).startswith(said)


def test_every_request_of_the_engine_is_in_use_and_waited_for() -> None:
    engine = SquareEngine((96, 160))
    canvases = tuple(np.zeros(engine.input_shape, np.uint8) for _ in range(3))
    assert keep_busy(engine, canvases, 40) == 40
    assert engine.num_started == 40
    assert engine.most_at_once == engine.num_requests
    engine.close()


def test_a_request_that_fails_fails_the_measurement() -> None:
    engine = SquareEngine((96, 160), fail_at=5)
    with pytest.raises(RuntimeError, match="the engine broke"):
        keep_busy(engine, (np.zeros(engine.input_shape, np.uint8),), 20)
    engine.close()


def test_streams_are_carried_by_their_latency_and_their_losses(
    clip: Source, weights: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(weights, folder)
    monkeypatch.setattr("pipeline.bench.streams.MOST_LOST", 1.0)
    trial = run_streams(config, clip, 2, max_latency_s=60, seconds=1.5)
    assert trial.carried
    assert 0 < trial.p50_s <= trial.p95_s
    assert 0 <= trial.lost < 1
    assert 0 < trial.evenness <= 1
    assert 0 < trial.frames_per_s < 2 * 25 * 1.5
    assert not run_streams(config, clip, 1, max_latency_s=1e-6, seconds=1).carried
    monkeypatch.setattr("pipeline.bench.streams.MOST_LOST", -1.0)
    assert not run_streams(config, clip, 1, max_latency_s=60, seconds=1).carried


class _SlowEngine(SquareEngine):
    """One picture at a time, 25 a second."""

    num_requests = 1

    def infer(self, images: np.ndarray) -> np.ndarray:
        from time import sleep

        sleep(0.04)
        return super().infer(images)


def test_the_search_ends_between_what_is_carried_and_what_is_not(
    clip: Source, weights: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "pipeline.job.build_engine", lambda _, *, image_hw, batch: _SlowEngine(image_hw, batch)
    )
    config = make_config(weights, folder)
    result = most_streams(config, clip, counts=(2, 4), max_latency_s=0.5, seconds=1.0)
    tried = {trial["streams"]: trial for trial in result["trials"]}
    assert not tried[4]["carried"]
    assert tried[4]["lost"] > 0.3
    assert result["most_streams"] in (0, 1)
    assert result["most_streams"] + 1 in tried


def test_sums_and_percentiles() -> None:
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0, "runs": 3}
    assert percentile([float(n) for n in range(100)], 0.95) == 95
    assert percentile([4.0], 0.95) == 4


def test_the_command_prints_a_table_or_json(
    clip: Source, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["bench", clip.location, "--model", str(weights), "--runs", "1"]
    assert sightline.main([*call, "--set", "model.image_size=160"]) == 0
    printed = capsys.readouterr().out
    assert "slow part" in printed
    assert "of the bound" in printed
    assert sightline.main([*call, "--set", "model.image_size=160", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pipeline"]["share_of_bound"]["median"] > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.mp4"], "nothing.mp4: no such file"),
        (["rtsp://127.0.0.1/x"], "bench measures by one video file"),
        (["CLIP", "--streams", "--counts", "1,x"], "--counts: expected numbers"),
        (["CLIP", "--runs", "0"], "--runs"),
    ],
)
def test_a_call_that_is_wrong_ends_in_a_line(
    arguments: list[str],
    said: str,
    clip: Source,
    weights: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    named = [clip.location if part == "CLIP" else part for part in arguments]
    assert sightline.main(["bench", *named, "--model", str(weights)]) == 2
    printed = capsys.readouterr()
    assert said in printed.err + printed.out
    assert "Traceback" not in printed.err
