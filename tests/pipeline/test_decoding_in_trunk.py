"""Decoders that work in the process of their trunk: sentence 20 of the contract in
`pipeline/runner.py`.

Where there is no GPU they decode on the processor, and all else is the same.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model.config import ModelConfig
from model.engines.contract import Takes
from pipeline.config import (
    GpuConfig,
    OutputConfig,
    PipelineConfig,
    SourceConfig,
    SupervisionConfig,
)
from pipeline.graph import Plan, tracker_floor, video_graph
from pipeline.job import Job
from pipeline.metrics import CounterTable
from pipeline.outputs import Outputs
from pipeline.runner import Supervisor
from pipeline.stages.source import ReadFile
from pipeline.transport.ports import Ports
from tests.pipeline.decoding.played_gpu import PlayedGpu
from tests.pipeline.planned import build_planned, make_clip
from tests.pipeline.scenes import CLASSES, count_frames, read_jsonl
from tests.pipeline.service import DOOR, YARD, replay, running

pytestmark = pytest.mark.usefixtures("two_gpus")

NUM_FRAMES = 120
ON_GPU = GpuConfig(decode="auto")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "yard.mp4", NUM_FRAMES)


def make_config(weights: Path, folder: Path, **nodes: Any) -> PipelineConfig:
    usual = {"placement": "processes", "gpu": ON_GPU, "output": OutputConfig(directory=folder)}
    return PipelineConfig(
        model=ModelConfig(weights=weights, image_size=160),
        **{**usual, **nodes},  # type: ignore[arg-type]
    )


def run_job(config: PipelineConfig, clip: Path, on_tick: Callable[[Job], None]) -> Job:
    job = Job(config, [str(clip)])
    job.run(lambda: on_tick(job))
    assert job.complete, job.streams[0].reason + job.streams[0].trace
    return job


@pytest.fixture(scope="module")
def expected(clip: Path, card_file: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The tracks that threads give."""
    folder = tmp_path_factory.mktemp("threads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.job.build_engine", build_planned)
        patch.setattr("pipeline.engines.choose_engine", lambda *_: "cuda")
        threads = make_config(card_file, folder, placement="threads", gpu=GpuConfig())
        run_job(threads, clip, lambda _: None)
    return tracks(folder)


def tracks(folder: Path) -> bytes:
    return (folder / "yard.mot.txt").read_bytes() + (folder / "yard.jsonl").read_bytes()


def homes(supervisor: Supervisor, group: str) -> dict[int, set[str]]:
    """Who works in the processes of a group."""
    processes = list(supervisor._crew._processes)
    return {p.pid: set(p.working) for p in processes if p.group == group and p.pid and p.working}


class Killer:
    """Kills processes of the stream, one after another, each when so many frames are tracked."""

    def __init__(self, *order: tuple[str, int]) -> None:
        self.seen: set[frozenset[str]] = set()
        """Who worked together in a trunk."""
        self._order = list(order)
        self._killed: set[int] = set()

    def __call__(self, job: Job) -> None:
        trunks = homes(job.supervisor, "trunk")
        self.seen |= {frozenset(workers) for workers in trunks.values()}
        if not self._order or job.counters["yard"]["tracked"] < self._order[0][1]:
            return
        for pid, workers in homes(job.supervisor, self._order[0][0]).items():
            if pid in self._killed or not workers & {"source:yard", "decode:yard"}:
                continue
            self._killed.add(pid)
            del self._order[0]
            os.kill(pid, signal.SIGKILL)
            return


def test_20_a_reader_and_then_a_trunk_die_and_no_track_is_another(
    tmp_path: Path, card_file: Path, clip: Path, expected: bytes
) -> None:
    killer = Killer(("read", 15), ("trunk", 50))
    one = GpuConfig(decode="auto", devices=(0,))
    job = run_job(make_config(card_file, tmp_path, gpu=one), clip, killer)
    assert tracks(tmp_path) == expected
    assert frozenset({"infer", "suppress", "decode:yard"}) in killer.seen
    assert job.summary()["replaced"] == ["read yard", "trunk", "read yard"]
    counters = job.counters["yard"]
    assert counters["decoded"] == counters["tracked"] == counters["packets"] == NUM_FRAMES
    assert not job.supervisor._hosted._orphans


def test_20_what_decoders_of_a_trunk_leave_on_the_gpu_is_read_there(
    tmp_path: Path, card_file: Path, clip: Path, expected: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after the trunk died, with all that lay on its GPU."""
    (tmp_path / "notes").mkdir()
    gpu = PlayedGpu(tmp_path / "notes")
    monkeypatch.setattr("pipeline.job.build_engine", gpu)
    config = make_config(
        card_file, tmp_path / "out", gpu=GpuConfig(decode="nvdec", devices=(0,)), window=4
    )
    job = run_job(config, clip, Killer(("trunk", 40)))
    assert tracks(tmp_path / "out") == expected
    assert job.summary()["replaced"] == ["trunk", "read yard"]
    assert job.streams[0].decoder.path == "nvdec"
    assert gpu.num_read_there() > (NUM_FRAMES - 40) // 2


@pytest.mark.slow
def test_20_decoders_of_a_device_that_is_given_up_work_on_in_the_trunk_of_another(
    tmp_path: Path, card_file: Path, clip: Path, expected: bytes
) -> None:
    """2026-11-22: 4 s on 2 busy cores."""
    config = make_config(card_file, tmp_path, supervision=SupervisionConfig(restarts=1))
    killer = Killer(("trunk", 15))
    job = run_job(config, clip, killer)
    assert tracks(tmp_path) == expected
    assert job.summary()["replaced"] == ["read yard"]  # which counts as no death of its own
    assert frozenset({"infer#1", "suppress#1", "decode:yard"}) in killer.seen
    assert [each["fault"] for each in job.summary()["devices"]] == ["it died", None]


@pytest.mark.slow
def test_20_a_trunk_that_dies_loses_no_picture_of_the_video(
    tmp_path: Path, card_file: Path, clip: Path
) -> None:
    """2026-11-22: 8 s on 2 busy cores."""
    videos = []
    for name, killer in (("whole", Killer()), ("killed", Killer(("trunk", 40)))):
        output = OutputConfig(directory=tmp_path / name, save_video=True)
        job = run_job(make_config(card_file, tmp_path, output=output), clip, killer)
        videos.append((tmp_path / name / "yard.mp4").read_bytes())
    assert job.summary()["replaced"][-1] == "read yard"
    assert count_frames(tmp_path / "killed/yard.mp4") == NUM_FRAMES
    assert videos[0] == videos[1]


@pytest.mark.slow
@pytest.mark.parametrize("limit", [None, 60])
def test_20_a_reader_that_dies_when_all_is_sent_does_not_keep_the_run_waiting(
    limit: int | None, tmp_path: Path, card_file: Path
) -> None:
    """2026-11-22: 4 s each on 2 busy cores."""
    clip = make_clip(tmp_path / "yard.mp4", 20 if limit is None else 250)
    killed: set[int] = set()

    def kill(job: Job) -> None:
        for pid in homes(job.supervisor, "read").keys() - killed:
            if len(killed) < 2 and job.counters["yard"]["packets"] >= 20:
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)

    config = make_config(card_file, tmp_path / "out", source=SourceConfig(limit=limit))
    job = run_job(config, clip, kill)
    assert killed
    assert len(read_jsonl(tmp_path / "out/yard.jsonl")) == (limit or 20)
    assert job.counters["yard"].num_in_flight == 0


def test_20_a_reader_that_came_after_its_decoder_had_all_leaves_with_it(
    tmp_path: Path, card_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it sends nobody takes."""
    read = ReadFile.run

    def never_end(self: ReadFile, ports: Ports) -> tuple[str, ...]:
        read(self, ports)
        while True:
            ports.wait()

    monkeypatch.setattr(ReadFile, "run", never_end)
    clip = make_clip(tmp_path / "yard.mp4", 5)
    config = make_config(card_file, tmp_path / "out", placement="threads")
    job = run_job(config, clip, lambda _: None)
    assert job.counters["yard"]["tracked"] == 5


@pytest.mark.slow
def test_20_cameras_go_on_and_every_frame_is_accounted_for(card_file: Path, clip: Path) -> None:
    """2026-11-22: 4 s on 2 busy cores."""
    with running(
        card_file,
        replay(YARD, clip),
        replay(DOOR, clip),
        build=build_planned,
        takes="coded",
        placement="processes",
        gpu=ON_GPU,
        source=SourceConfig(staleness_s=10),
        window=32,
    ) as service:
        supervisor = service.supervisor
        for name in (YARD, DOOR):
            service.wait_for_frames(name, 5)
        ((pid, workers),) = homes(supervisor, "trunk").items()
        assert {f"decode:{YARD}", f"decode:{DOOR}"} < workers
        os.kill(pid, signal.SIGKILL)
        service.wait(lambda: len(supervisor.replaced) == 3)
        for name in (YARD, DOOR):
            service.wait_for_frames(name, 10)
        supervisor.remove(DOOR)
        service.wait(lambda: service.is_gone(DOOR))
        ((_, workers),) = homes(supervisor, "trunk").items()
        assert workers == {"infer", "suppress", f"decode:{YARD}"}
        counted = supervisor.counted()[DOOR]
        assert counted["decoded"] == counted["tracked"] + counted["dropped_stage_died"]
        for name in (YARD, DOOR):
            indices = [frame.frame_index for frame, _ in service.frames[name]]
            assert indices == sorted(set(indices))


@pytest.mark.parametrize(
    ("takes", "decode", "hosted"),
    [
        ("coded", "auto", True),
        ("coded", "nvdec", True),
        ("coded", "cpu", False),
        ("canvases", "nvdec", False),
    ],
)
def test_who_decodes_on_the_gpu_that_looks_works_in_its_process(
    takes: Takes, decode: Any, hosted: bool, tmp_path: Path, card_file: Path
) -> None:
    config = make_config(card_file, tmp_path, gpu=GpuConfig(decode=decode))
    plan = Plan(
        config=config,
        classes=CLASSES,
        class_ids=None,
        floor=tracker_floor(config),
        build_engine=build_planned,
        outputs=Outputs(config.output),
        takes=takes,
    )
    graph = video_graph(plan, CounterTable())
    decoder = next(stage for stage in graph.branch if stage.name == "decode")
    assert (decoder.group in graph.hosted) == hosted
