"""Several GPUs: sentences 8, 11 and 17 to 19 of the contract in `pipeline/runner.py`.

Each is played by an engine whose boxes are planned (`tests/pipeline/planned.py`).
"""

import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.config import ModelConfig
from model.cuda.plan import GpuWanted
from model.errors import EngineError
from pipeline.config import (
    OutputConfig,
    PipelineConfig,
    SourceConfig,
    SupervisionConfig,
)
from pipeline.job import Job
from pipeline.runner import Supervisor
from pipeline.serve import metrics
from pipeline.serve.status import describe
from tests.pipeline.planned import NOTED, PlannedGpu, build_planned, make_clip
from tests.pipeline.scenes import make_card_file
from tests.pipeline.service import DOOR, GATE, YARD, Running, replay, running

pytestmark = pytest.mark.usefixtures("two_gpus")

NUM_FRAMES = 120
NAMES = ("yard", "gate")
UNHURRIED: dict[str, Any] = {"source": SourceConfig(staleness_s=10), "window": 32}
"""What is lost then is not this machine's slowness."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "yard.mp4", NUM_FRAMES)


@pytest.fixture(scope="module")
def clips(clip: Path) -> list[Path]:
    """Two files whose tracks are the same."""
    copies = [clip.with_name(f"{name}.mp4") for name in NAMES]
    for copy in copies:
        copy.write_bytes(clip.read_bytes())
    return copies


def make_config(weights: Path, folder: Path, **nodes: Any) -> PipelineConfig:
    return PipelineConfig(
        model=ModelConfig(weights=weights, image_size=160),
        output=OutputConfig(directory=folder),
        **nodes,
    )


def run_job(
    config: PipelineConfig, clips: list[Path], on_tick: Callable[[Job], None] = lambda _: None
) -> Job:
    job = Job(config, [str(clip) for clip in clips])
    job.run(lambda: on_tick(job))
    return job


def tracks(folder: Path, name: str) -> bytes:
    return (folder / f"{name}.mot.txt").read_bytes() + (folder / f"{name}.jsonl").read_bytes()


@pytest.fixture(scope="module")
def expected(clips: list[Path], card_file: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What one trunk gives."""
    folder = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.job.build_engine", build_planned)
        patch.setattr("pipeline.engines.choose_engine", lambda *_: "cuda")
        assert run_job(make_config(card_file, folder), clips[:1]).complete
    return tracks(folder, "yard")


def trunk_pids(supervisor: Supervisor, number: int) -> set[int]:
    processes = list(supervisor._crew._processes)
    return {p.pid for p in processes if (p.group, p.trunk) == ("trunk", number) and p.pid}


class Killer:
    """Kills the processes of a trunk, the first once its stream is well under way."""

    def __init__(self, number: int, times: int) -> None:
        self.killed: set[int] = set()
        self.others: set[int] = set()
        """Processes of the other trunk that were seen."""
        self._number = number
        self._times = times

    def __call__(self, job: Job) -> None:
        supervisor = job.supervisor
        self.others |= trunk_pids(supervisor, 1 - self._number)
        at = [s for s in job.streams if s.is_running and s.branch.trunk == self._number]
        if not self.killed and not any(state.counters["tracked"] > 15 for state in at):
            return
        for pid in trunk_pids(supervisor, self._number) - self.killed:
            if len(self.killed) < self._times:
                self.killed.add(pid)
                os.kill(pid, signal.SIGKILL)


def test_two_gpus_in_one_process_give_the_tracks_of_one_byte_for_byte(
    tmp_path: Path, card_file: Path, clips: list[Path], expected: bytes
) -> None:
    job = run_job(make_config(card_file, tmp_path), clips)
    assert job.complete, job.streams[0].reason + job.streams[0].trace
    assert [tracks(tmp_path, name) for name in NAMES] == [expected, expected]
    assert {engine.device for engine in job.supervisor.engines} == {0, 1}
    assert [stream["device"] for stream in job.summary()["streams"]] == [0, 1]
    assert {"infer", "infer#1", "suppress", "suppress#1"} <= job.supervisor.usage.keys()
    assert [job.supervisor.usage[name]["messages"] for name in ("infer", "infer#1")] == (
        [NUM_FRAMES + 1] * 2
    )
    assert not NOTED.registered


@pytest.mark.slow
def test_8_a_trunk_that_dies_is_replaced_on_its_device_and_no_track_is_another(
    tmp_path: Path, card_file: Path, clips: list[Path], expected: bytes
) -> None:
    """2026-11-22: 6 s on 2 busy cores; the next test kills once more."""
    killer = Killer(1, times=1)
    job = run_job(make_config(card_file, tmp_path, placement="processes"), clips, killer)
    assert job.complete, job.streams[0].reason + job.streams[0].trace
    assert [tracks(tmp_path, name) for name in NAMES] == [expected, expected]
    assert job.summary()["replaced"] == ["trunk#1"]
    assert len(killer.others) == 1
    assert {(state.device, state.fault) for state in job.supervisor.devices()} == {(0, ""), (1, "")}


def test_19_streams_of_a_device_that_is_given_up_go_over_and_no_track_is_another(
    tmp_path: Path,
    card_file: Path,
    clips: list[Path],
    expected: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    killer = Killer(1, times=9)
    config = make_config(
        card_file, tmp_path, placement="processes", supervision=SupervisionConfig(restarts=2)
    )
    job = run_job(config, clips, killer)
    assert job.complete, job.streams[0].reason + job.streams[0].trace
    assert [tracks(tmp_path, name) for name in NAMES] == [expected, expected]
    assert len(killer.killed) == 2
    assert len(killer.others) == 1
    assert job.summary()["replaced"] == ["trunk#1"]
    assert [state.branch.stream for state in job.streams] == list(NAMES)  # the same branches
    assert [stream["device"] for stream in job.summary()["streams"]] == [0, 0]
    assert [each["fault"] for each in job.summary()["devices"]] == [None, "it died"]
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.message for record in told] == [
        "device 1: trunk: it died; given up, its streams go over to others"
    ]
    counters = [job.counters[name] for name in NAMES]
    assert [(c["decoded"], c["tracked"]) for c in counters] == [(NUM_FRAMES, NUM_FRAMES)] * 2


@pytest.mark.slow
def test_11_the_last_device_ends_the_run(
    tmp_path: Path, card_file: Path, clips: list[Path]
) -> None:
    """2026-11-22: 4 s on 2 busy cores."""
    killers = (Killer(0, times=9), Killer(1, times=9))

    def kill(job: Job) -> None:
        for killer in killers:
            killer(job)

    config = make_config(
        card_file, tmp_path, placement="processes", supervision=SupervisionConfig(restarts=1)
    )
    job = run_job(config, clips, kill)
    assert not job.complete
    assert "the process of trunk ended before its work did" in job.streams[0].reason
    assert sum(len(killer.killed) for killer in killers) == 2
    assert not job.supervisor.replaced


class NamedGpu(PlannedGpu):
    """Behaves as the name of its weights says, on the second device."""

    def __init__(self, kind: str, image_hw: tuple[int, int], looks: int, wanted: GpuWanted) -> None:
        self._bad = wanted.device == 1 and kind.startswith("bad")
        if self._bad and kind == "bad-build":
            raise RuntimeError("no such instruction")
        if wanted.device == 1 and kind == "kills":
            os.kill(os.getpid(), signal.SIGKILL)
        super().__init__(image_hw, looks, wanted)
        open_now.append(self)

    def start(self, images: Any, predictions: np.ndarray, on_done: Any) -> None:
        def fail(_: BaseException | None) -> None:
            on_done(RuntimeError("the engine broke"))

        super().start(images, predictions, fail if self._bad else on_done)

    def close(self) -> None:
        if self in open_now:
            open_now.remove(self)
        super().close()


open_now: list[NamedGpu] = []


def build_named(
    config: ModelConfig, *, image_hw: tuple[int, int], batch: int, gpu: GpuWanted
) -> NamedGpu:
    assert config.weights is not None
    return NamedGpu(config.weights.stem, image_hw, batch, gpu)


def model_of(service: Running, name: str) -> int:
    """The model that looked at the last frame."""
    return service.frames[name][-1][0].model


def assert_whole(service: Running, *names: str) -> None:
    for name in names:
        frames = [frame.frame_index for frame, _ in service.frames[name]]
        assert frames == list(range(len(frames)))
        assert service.supervisor.streams[name].counters.num_dropped == 0


def test_17_a_model_takes_over_everywhere_or_nowhere(tmp_path: Path, clip: Path) -> None:
    files = {
        name: make_card_file(tmp_path / f"{name}.safetensors")
        for name in ("first", "good", "bad-results", "bad-build")
    }
    sources = (replay(YARD, clip), replay(DOOR, clip))
    with running(
        files["first"],
        *sources,
        build=build_named,
        takes="coded",
        devices=(0, 1),
        **UNHURRIED,
    ) as service:
        supervisor = service.supervisor
        service.wait_for_frames(YARD, 5)
        service.wait_for_frames(DOOR, 5)
        for bad in ("bad-results", "bad-build"):
            refusal = supervisor.swap_model(files[bad]).exception(20)
            assert isinstance(refusal, EngineError)
            service.wait(lambda: [model_of(service, name) for name in (YARD, DOOR)] == [0, 0])
            assert supervisor.model.number == 0
            service.wait(lambda: len(open_now) == 2)
            assert {engine.model for engine in supervisor.engines_in_use()} == {0}
        model = supervisor.swap_model(files["good"]).result(20)
        service.wait(lambda: [model_of(service, n) for n in (YARD, DOOR)] == [model.number] * 2)
        service.wait(lambda: len(open_now) == 2)  # the old ones' memory is given back
        in_use = supervisor.engines_in_use()
        assert sorted((engine.device, engine.model) for engine in in_use) == [(0, 3), (1, 3)]
        assert_whole(service, YARD, DOOR)
    assert not open_now


def test_18_cameras_that_come_and_go_are_spread_and_leave_nothing(
    card_file: Path, clip: Path
) -> None:
    with running(
        card_file,
        replay(YARD, clip),
        build=build_planned,
        takes="coded",
        devices=(0, 1),
        **UNHURRIED,
    ) as service:
        supervisor = service.supervisor

        def at() -> list[tuple[str, ...]]:
            return [state.streams for state in supervisor.devices()]

        service.wait_for_frames(YARD, 3)
        supervisor.add(replay(DOOR, clip))
        service.wait_for_frames(DOOR, 3)
        assert at() == [(YARD,), (DOOR,)]
        nothing: Any = {}
        status = describe(supervisor, nothing, {})
        assert status["devices"][1] == {"device": 1, "streams": (DOOR,), "fault": ""}
        assert {engine["device"] for engine in status["model"]["engines"]} == {0, 1}
        cameras, given_up = metrics._devices(supervisor.devices())
        assert [(s.labels["device"], s.value) for s in cameras.samples] == [("0", 1), ("1", 1)]
        assert [s.value for s in given_up.samples] == [0, 0]
        supervisor.remove(YARD)
        service.wait(lambda: service.is_gone(YARD))
        supervisor.add(replay(GATE, clip))
        service.wait_for_frames(GATE, 3)
        assert at() == [(GATE,), (DOOR,)]
        assert_whole(service, DOOR, GATE)
        desk, pools = supervisor._crew._desk, supervisor._crew._pools
        results = {"/predictions/1x96x160", "/predictions#1/1x96x160"}
        left = results | {f"{name}/images" for name in (DOOR, GATE)}
        assert desk._files.keys() == pools._mapped.keys() == desk._uses.keys() == left


@pytest.mark.slow
def test_19_cameras_go_over_and_a_model_that_kills_one_trunk_takes_over_in_none(
    tmp_path: Path, clip: Path
) -> None:
    """2026-11-22: 7 s on 2 busy cores."""
    first, second, bad = (
        make_card_file(tmp_path / f"{name}.safetensors") for name in ("first", "good", "kills")
    )
    with running(
        first,
        replay(YARD, clip),
        replay(DOOR, clip),
        build=build_named,
        takes="coded",
        devices=(0, 1),
        placement="processes",
        supervision=SupervisionConfig(restarts=2),
        **UNHURRIED,
    ) as service:
        supervisor = service.supervisor
        service.wait_for_frames(YARD, 3)
        service.wait_for_frames(DOOR, 3)
        refusal = supervisor.swap_model(bad).exception(20)
        assert "the process that tried it ended: device 1: it died" in str(refusal)
        service.wait_for_frames(YARD, 5)
        service.wait_for_frames(DOOR, 5)
        assert [model_of(service, name) for name in (YARD, DOOR)] == [0, 0]
        (pid,) = trunk_pids(supervisor, 1)
        os.kill(pid, signal.SIGKILL)
        service.wait(lambda: supervisor.devices()[1].fault != "")
        service.wait_for_frames(DOOR, 10)
        assert [state.streams for state in supervisor.devices()] == [(YARD, DOOR), ()]
        supervisor.add(replay(GATE, clip))
        service.wait_for_frames(GATE, 3)
        assert supervisor.devices()[1].streams == ()
        number = supervisor.swap_model(second).result(20).number
        service.wait(lambda: [model_of(service, n) for n in (YARD, DOOR, GATE)] == [number] * 3)
        for name in (YARD, DOOR, GATE):  # a trunk that begins may take longer than a window lasts
            indices = [frame.frame_index for frame, _ in service.frames[name]]
            assert indices == sorted(set(indices))
            assert supervisor.streams[name].counters["dropped_stage_died"] == 0
        assert supervisor.fault == ""
