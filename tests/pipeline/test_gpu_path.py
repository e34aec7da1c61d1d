"""Streams through an engine that takes pictures as decoders make them and gives boxes.

It stands in for the one on a GPU, `tests/pipeline/planned.py`: its boxes are planned, its batches
end after random delays. The tracks must be those of an engine for the processor.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model.card import read_card
from model.config import ModelConfig, Suppression
from model.cuda.plan import GpuWanted
from model.errors import ConfigError
from pipeline.config import (
    GpuConfig,
    OutputConfig,
    PipelineConfig,
    SlicesConfig,
    SourceConfig,
)
from pipeline.engines import takes_here
from pipeline.job import Job
from pipeline.serve.status import describe
from tests.pipeline.far_side import FarThread, KeyRing
from tests.pipeline.planned import NOTED, PlannedGpu, build_planned, make_clip, make_pictures
from tests.pipeline.scenes import make_card_file
from tests.pipeline.service import DOOR, GATE, YARD, Running, replay, running
from tests.pipeline.test_processes import once_at

NUM_FRAMES = 90
ON_GPU = pytest.mark.usefixtures("on_gpu")


@pytest.fixture(autouse=True)
def _planned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.job.build_engine", build_planned)


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` is the GPU."""
    monkeypatch.setattr("pipeline.engines.choose_engine", lambda *_: "cuda")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "yard.mp4", NUM_FRAMES)


def make_config(weights: Path, folder: Path, **nodes: Any) -> PipelineConfig:
    return PipelineConfig(
        model=ModelConfig(weights=weights, image_size=160),
        output=OutputConfig(directory=folder),
        **nodes,
    )


def tracks(
    config: PipelineConfig, source: Path, on_tick: Callable[[Job], None] = lambda _: None
) -> list[bytes]:
    """What a run writes."""
    job = Job(config, [str(source)])
    job.run(lambda: on_tick(job))
    assert job.complete, job.streams[0].reason + job.streams[0].trace
    folder = config.output.directory
    return [(folder / f"{source.stem}{end}").read_bytes() for end in (".mot.txt", ".jsonl")]


def on_processor(weights: Path, folder: Path, clip: Path, **nodes: Any) -> list[bytes]:
    """The tracks of the path without a GPU."""
    return tracks(make_config(weights, folder / "processor", **nodes), clip)


KINDS = {
    "whole": {},
    "slices": {"slices": SlicesConfig(budget=5)},
    "strides": {"source": SourceConfig(stride=3), "window": 2},
}


@pytest.mark.parametrize("kind", KINDS)
def test_tracks_are_those_of_the_cpu_path_byte_for_byte(
    kind: str, tmp_path: Path, card_file: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = on_processor(card_file, tmp_path, clip, **KINDS[kind])
    monkeypatch.setattr("pipeline.engines.choose_engine", lambda *_: "cuda")
    ran: list[Job] = []
    config = make_config(card_file, tmp_path / "gpu", **KINDS[kind])
    assert tracks(config, clip, ran.append) == expected
    assert ran[0].supervisor.engines[0].name == "planned gpu"
    assert NOTED.num_ever > 0
    assert NOTED.num_missed == 0  # the engine knew where each picture lies
    assert not NOTED.registered
    assert len(expected[0].splitlines()) > NUM_FRAMES / 3


@pytest.mark.parametrize("pixel_format", ["yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le"])
def test_any_format_a_decoder_gives_reaches_the_engine(
    pixel_format: str, tmp_path: Path, card_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip(tmp_path / "yard.mp4", 12, pixel_format=pixel_format)
    expected = on_processor(card_file, tmp_path, clip)
    monkeypatch.setattr("pipeline.engines.choose_engine", lambda *_: "cuda")
    assert tracks(make_config(card_file, tmp_path / "gpu"), clip) == expected


def test_pictures_that_change_their_size_get_slots_of_their_own_size(
    tmp_path: Path, card_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [(320, 192)] * 12 + [(640, 384)] * 12 + [(320, 192)] * 6
    folder = make_pictures(tmp_path / "yard", sizes)
    expected = on_processor(card_file, tmp_path, folder)
    monkeypatch.setattr("pipeline.engines.choose_engine", lambda *_: "cuda")
    config = make_config(card_file, tmp_path / "gpu")
    job = Job(config, [str(folder)])
    job.run()
    assert job.complete, job.streams[0].reason
    assert [(tmp_path / f"gpu/yard{end}").read_bytes() for end in (".mot.txt", ".jsonl")] == (
        expected
    )
    desk = job.supervisor._crew._desk
    uses = {name: count for name, count in desk._uses.items() if name.endswith("/images")}
    assert list(uses.values()) == [3]


def test_a_killed_trunk_changes_no_track_of_a_file(
    tmp_path: Path, card_file: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = on_processor(card_file, tmp_path, clip)
    monkeypatch.setattr("pipeline.engines.choose_engine", lambda *_: "cuda")
    config = make_config(card_file, tmp_path / "gpu", placement="processes")
    killed: list[Job] = []
    kill = once_at(30, "trunk")

    def on_tick(job: Job) -> None:
        kill(job)
        killed[:] = [job]

    assert tracks(config, clip, on_tick) == expected
    assert [death.group for death in killed[0].supervisor.replaced] == ["trunk"]


class Slow:
    """Builds engines that are too slow for what is asked of them, and remembers them."""

    def __init__(self, batch_s: float) -> None:
        self.built: list[PlannedGpu] = []
        self._batch_s = batch_s

    def __call__(
        self, _: Any, *, image_hw: tuple[int, int], batch: int, gpu: GpuWanted
    ) -> PlannedGpu:
        self.built.append(PlannedGpu(image_hw, batch, gpu, self._batch_s))
        return self.built[-1]


def settled(service: Running, name: str) -> tuple[int, int]:
    """How many frames of a camera were tracked, and how many were late."""
    counters = service.supervisor.streams[name].counters
    return counters["tracked"], counters["dropped_late"]


def test_a_batch_of_many_cameras_is_fair(card_file: Path, clip: Path) -> None:
    cameras = (YARD, DOOR, GATE)
    gpu = GpuConfig(batch_sizes=(1, 4), in_flight=1)
    slow = Slow(0.15)
    sources = [replay(name, clip) for name in cameras]
    with running(card_file, *sources, build=slow, takes="coded", gpu=gpu) as service:
        service.wait(lambda: sum(settled(service, name)[0] for name in cameras) > 45)
        counts = [settled(service, name)[0] for name in cameras]
    assert max(slow.built[0].batches) > 1
    assert min(counts) > 0.6 * max(counts), counts


def test_late_frames_cost_no_batch(card_file: Path, clip: Path) -> None:
    gpu = GpuConfig(batch_sizes=(1,), file_batch=1, in_flight=1)
    slow = Slow(0.3)
    late = SourceConfig(staleness_s=0.3)
    with running(
        card_file, replay(YARD, clip), build=slow, takes="coded", gpu=gpu, source=late
    ) as service:
        service.wait(lambda: settled(service, YARD)[1] > 4 and settled(service, YARD)[0] > 4)
        service.supervisor.stop()
        service.wait(lambda: service.supervisor.streams[YARD].ended_s is not None)
        tracked, _ = settled(service, YARD)
        assert len(slow.built[0].seen) == tracked
        assert service.supervisor.streams[YARD].counters.num_in_flight == 0


@ON_GPU
def test_the_model_changes_between_two_frames(tmp_path: Path, clip: Path) -> None:
    first, second = (make_card_file(tmp_path / f"{n}.safetensors") for n in ("first", "second"))
    unhurried = SourceConfig(staleness_s=10)
    with running(
        first,
        replay(YARD, clip),
        build=build_planned,
        takes="coded",
        source=unhurried,
        window=32,
    ) as service:
        service.wait_for_frames(YARD, 5)
        service.supervisor.swap_model(second).result(20)
        service.wait_for_frames(YARD, 5)
        frames = service.frames[YARD]
        assert [frame.frame_index for frame, _ in frames] == list(range(len(frames)))
        assert {frame.model for frame, _ in frames} == {0, 1}


def test_a_model_whose_engine_takes_other_pictures_is_refused(
    tmp_path: Path, card_file: Path, clip: Path
) -> None:
    other = make_card_file(tmp_path / "other.safetensors")
    with running(card_file, replay(YARD, clip), build=build_planned, takes="coded") as service:
        service.wait_for_frames(YARD, 3)
        with pytest.raises(ConfigError, match="takes canvases pictures") as refused:
            service.supervisor.swap_model(other)
        assert "\n" not in str(refused.value)


@ON_GPU
def test_a_station_is_given_canvases_whatever_is_in_this_machine(
    tmp_path: Path, card_file: Path, clip: Path
) -> None:
    ring = KeyRing.make(tmp_path / "keys")
    with FarThread(ring.worker(card_file)) as far:
        config = make_config(card_file, tmp_path / "out", remote=ring.remote(far.address))
        job = Job(config, [str(clip)])
        assert job.supervisor._crew.graph.trunk[0].name == "remote"
        job.run()
    assert job.complete, job.streams[0].reason


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "many labels": ({"suppression": Suppression(multi_label=True)}, "suppression.multi_label: "),
    "too many looks": (
        {"slices": SlicesConfig(budget=9), "gpu": GpuConfig(batch_sizes=(1, 4))},
        "slices.budget: ",
    ),
}


@ON_GPU
@pytest.mark.parametrize("kind", REFUSED)
def test_settings_that_cannot_work_are_refused_in_a_line(
    kind: str, tmp_path: Path, card_file: Path
) -> None:
    nodes, begin = REFUSED[kind]
    with pytest.raises(ConfigError) as refused:
        takes_here(make_config(card_file, tmp_path, **nodes), read_card(card_file))
    assert str(refused.value).startswith(begin)
    assert "\n" not in str(refused.value)


def test_a_gpu_here_and_a_worker_elsewhere_exclude_each_other(
    tmp_path: Path, card_file: Path
) -> None:
    ring = KeyRing.make(tmp_path / "keys")
    config = make_config(card_file, tmp_path, remote=ring.remote("tcp://127.0.0.1:9"))
    model = config.model.model_copy(update={"engine": "cuda"})
    with pytest.raises(ConfigError, match=r"model\.engine: cuda .* leave one of them out"):
        takes_here(config.model_copy(update={"model": model}), read_card(card_file))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"batch_sizes": (4, 1)}, "must rise"),
        ({"batch_sizes": ()}, "must rise"),
        ({"batch_sizes": (1, 2), "file_batch": 4}, "one of batch_sizes"),
    ],
)
def test_batch_sizes_rise_and_that_of_files_is_one_of_them(
    fault: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        GpuConfig(**fault)


@ON_GPU
def test_the_summary_says_who_decodes_and_who_encodes(
    tmp_path: Path, card_file: Path, clip: Path
) -> None:
    """Here it is the processor, with the reasons."""
    config = make_config(card_file, tmp_path, gpu=GpuConfig(decode="auto", encode="auto"))
    output = config.output.model_copy(update={"save_video": True})
    job = Job(config.model_copy(update={"output": output}), [str(clip)])
    job.run()
    (stream,) = job.summary()["streams"]
    assert stream["hardware_lost"] == 0
    assert (stream["decoder"], stream["encoder"]) in {("cpu", "libx264"), ("nvdec", "h264_nvenc")}
    if stream["decoder"] == "cpu":
        assert stream["decoder_reason"].startswith("no decoder on the GPU: ")
    if stream["encoder"] == "libx264":
        assert stream["encoder_reason"].startswith("h264_nvenc does not work here (")


def test_without_a_gpu_nobody_is_asked_for_one(tmp_path: Path, card_file: Path, clip: Path) -> None:
    job = Job(make_config(card_file, tmp_path), [str(clip)])
    job.run()
    (stream,) = job.summary()["streams"]
    assert (stream["decoder"], stream["decoder_reason"]) == ("cpu", None)
    assert (stream["encoder"], stream["encoder_reason"]) == (None, None)


def test_a_camera_that_wants_the_gpu_and_has_none_says_so(card_file: Path, clip: Path) -> None:
    """Where there is one, it decodes."""
    gpu = GpuConfig(decode="nvdec")
    with running(card_file, replay(YARD, clip), build=build_planned, gpu=gpu) as service:
        service.wait_for_frames(YARD, 1)
        state = service.supervisor.streams[YARD]
        service.wait(lambda: state.decoder.path == "nvdec" or state.decoder.reason != "")
        nothing: Any = {}
        status = describe(service.supervisor, nothing, {})["cameras"][YARD]
    assert status["counters"]["hardware_lost"] == 0
    if status["decoder"] == "cpu":
        assert status["decoder_reason"].startswith("no decoder on the GPU: ")
