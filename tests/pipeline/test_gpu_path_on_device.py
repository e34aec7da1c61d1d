# SPDX-License-Identifier: Apache-2.0
"""Streams that are decoded on a device, and whose pictures stay there until the engine has them.

The device is played by this processor, which does its work as late as it may; so are the decoder
(`tests/pipeline/decoding/played_nvdec.py`) and, where no kernel is needed, the engine. The tracks
must be those of the way by the host's memory, byte for byte.
"""

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from model.config import ModelConfig
from model.cuda.plan import GpuWanted
from model.errors import EngineError
from pipeline.cameras import CameraConfig
from pipeline.config import (
    GateConfig,
    GpuConfig,
    OutputConfig,
    PipelineConfig,
    SlicesConfig,
    SourceConfig,
)
from pipeline.decoding import hardware
from pipeline.decoding.inputs import Source
from pipeline.decoding.surface import SurfaceReader
from pipeline.job import Job
from pipeline.messages import CodecParameters
from pipeline.transport.devicepool import DevicePools
from tests.model.cuda.host_device import HostDevice
from tests.pipeline.decoding.played_nvdec import PlayedNvdec, Script, What
from tests.pipeline.media_factory import spliced
from tests.pipeline.planned import PlannedGpu, make_clip
from tests.pipeline.scenes import make_card_file
from tests.pipeline.service import DOOR, YARD, replay, running

NUM_FRAMES = 40
WINDOW = 4
BEFORE = WINDOW + 1
"""Pictures that come to the host at most, since no engine is built when they are decoded."""


def always(_: int) -> What:
    return "nvdec"


class Machine:
    """A GPU that decodes and looks, and those who have worked on it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **how: Any) -> None:
        self.device = HostDevice(None, **how)
        self.engines: list[PlannedGpu] = []
        self.decoders: list[PlayedNvdec] = []
        self.scripts: list[Script] = []
        """Of one decoder after the other; the last is that of all others, too."""
        monkeypatch.setattr(hardware, "open_on_device", self._open)
        monkeypatch.setattr(hardware, "HWAccel", lambda *_, **__: None)
        monkeypatch.setattr("pipeline.engines.choose_engine", lambda *_: "cuda")
        monkeypatch.setattr("pipeline.job.build_engine", self.build)

    def build(self, _: Any, *, image_hw: tuple[int, int], batch: int, gpu: GpuWanted) -> PlannedGpu:
        self.engines.append(PlannedGpu(image_hw, batch, gpu, device=self.device))
        return self.engines[-1]

    def _open(self, parameters: CodecParameters, _: Any) -> PlayedNvdec:
        scripts = self.scripts[len(self.decoders) :] or self.scripts[-1:] or [always]
        self.decoders.append(PlayedNvdec(parameters, self.device, scripts[0]))
        return self.decoders[-1]

    @property
    def num_read_there(self) -> int:
        return sum(engine.num_read_there for engine in self.engines)

    @property
    def num_seen(self) -> int:
        return sum(len(engine.seen) for engine in self.engines)

    def forget(self) -> None:
        self.engines.clear()
        self.decoders.clear()
        gc.collect()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


@contextmanager
def by_the_host() -> Iterator[None]:
    """Within it, pictures of the GPU come to the host."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DevicePools, "offer", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "yard.mp4", NUM_FRAMES)


def outputs(
    weights: Path, folder: Path, clip: Path, camera: CameraConfig | None = None, **nodes: Any
) -> tuple[Job, dict[str, bytes]]:
    """What a run writes."""
    output = OutputConfig(directory=folder, **nodes.pop("output", {}))
    settings = {"gpu": GpuConfig(decode="nvdec"), "window": WINDOW, **nodes}
    model = ModelConfig(weights=weights, image_size=160)
    config = PipelineConfig(model=model, output=output, **settings)
    source = Source(name="yard", kind="file", location=str(clip), camera=camera or CameraConfig())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.job.find_sources", lambda _: (source,))
        job = Job(config, [str(clip)])
        job.run()
    assert job.complete, job.streams[0].reason + job.streams[0].trace
    names = (path for path in folder.iterdir() if path.name != "summary.json")
    return job, {path.name: path.read_bytes() for path in names}


def compared(
    machine: Machine, weights: Path, folder: Path, clip: Path, **how: Any
) -> tuple[Job, dict[str, bytes]]:
    """What a run writes, after it was held against one by the host's memory."""
    with by_the_host():
        _, expected = outputs(weights, folder / "host", clip, **how)
    assert machine.num_read_there == 0
    machine.forget()
    job, written = outputs(weights, folder / "device", clip, **how)
    assert written.keys() == expected.keys()
    for name, content in expected.items():
        assert written[name] == content, name
    return job, written


PRIVATE = CameraConfig(privacy=(((0.1, 0.1), (0.6, 0.1), (0.6, 0.9)),))
PARTS = CameraConfig(rotate_deg=90, region=(0.0, 0.1, 0.8, 1.0))
KINDS: dict[str, dict[str, Any]] = {
    "whole": {},
    "turned, in part, by slices": {"camera": PARTS, "slices": SlicesConfig(budget=5)},
    "gate": {"gate": GateConfig(refresh_s=0.2)},
    "video": {"output": {"save_video": True}, "camera": PRIVATE},
}


@pytest.mark.parametrize("kind", KINDS)
def test_tracks_are_those_of_the_way_by_the_host_byte_for_byte(
    kind: str, machine: Machine, tmp_path: Path, card_file: Path, clip: Path
) -> None:
    job, written = compared(machine, card_file, tmp_path, clip, **KINDS[kind])
    (stream,) = job.summary()["streams"]
    assert (stream["decoder"], stream["hardware_lost"]) == ("nvdec", 0)
    assert machine.num_seen - machine.num_read_there <= BEFORE
    assert machine.num_read_there > BEFORE
    assert machine.decoders[0].surfaces.most_held <= 4
    assert written["yard.jsonl"].count(b"\n") == NUM_FRAMES


def test_the_processors_decoder_gives_the_same_tracks(
    machine: Machine, tmp_path: Path, card_file: Path, clip: Path
) -> None:
    _, expected = outputs(card_file, tmp_path / "cpu", clip, gpu=GpuConfig(decode="cpu"))
    assert machine.num_read_there == 0
    _, written = outputs(card_file, tmp_path / "device", clip)
    assert machine.num_read_there > 0
    assert written == expected


def test_a_loss_in_mid_stream_changes_no_track(
    machine: Machine, tmp_path: Path, card_file: Path, clip: Path
) -> None:
    machine.scripts = [lambda packet: "nvdec" if packet < 20 else "cpu"] * 2
    job, _ = compared(machine, card_file, tmp_path, clip)
    (stream,) = job.summary()["streams"]
    assert (stream["decoder"], stream["hardware_lost"]) == ("cpu", 1)
    assert 20 - BEFORE <= machine.num_read_there <= 20


def test_pictures_that_change_their_size_get_slots_of_their_own_size(
    machine: Machine, tmp_path: Path, card_file: Path
) -> None:
    sizes = [(320, 192), (640, 384), (320, 192)]
    clips = [
        make_clip(tmp_path / f"{number}.ts", 15, width=width, height=height)
        for number, (width, height) in enumerate(sizes)
    ]
    compared(machine, card_file, tmp_path, spliced(tmp_path / "yard.ts", *clips))
    assert machine.num_read_there >= 45 - BEFORE
    machine.forget()
    assert machine.device.used_bytes == 0


def test_a_gpu_without_room_for_slots_has_them_on_the_host_and_says_so_once(
    tmp_path: Path,
    card_file: Path,
    clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    machine = Machine(monkeypatch, room_bytes=700_000)  # the decoder's surfaces take 589 824
    with caplog.at_level(logging.WARNING):
        compared(machine, card_file, tmp_path, clip)
    assert machine.num_read_there == 0
    (said,) = [record.getMessage() for record in caplog.records if "no room" in record.msg]
    assert said.startswith("yard: no room on the GPU for 4 pictures of 0.1 MiB, so they go by ")
    assert "\n" not in said


LIVE: dict[str, Any] = {
    "takes": "coded",
    "gpu": GpuConfig(decode="nvdec"),
    "source": SourceConfig(staleness_s=10),
    "window": 16,
}


def test_a_camera_comes_back_to_the_gpu_after_a_loss(
    machine: Machine, card_file: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "FIRST_PAUSE_S", 0.3)
    machine.scripts = [lambda packet: "nvdec" if packet < 12 else "cpu", always]
    with running(card_file, replay(YARD, clip), build=machine.build, **LIVE) as service:
        service.wait(lambda: len(machine.decoders) == 2)
        lost = machine.num_read_there
        service.wait(lambda: machine.num_read_there > lost + 20)
        frames = service.frames[YARD]
        assert [frame.frame_index for frame, _ in frames] == list(range(len(frames)))
        assert service.supervisor.streams[YARD].counters["hardware_lost"] == 1


class Failing(PlannedGpu):
    """Reads its pictures, and fails at each."""

    def start(self, images: Any, predictions: Any, on_done: Any) -> None:
        super().start(images, predictions, lambda _: on_done(EngineError("it is no good")))


def test_a_model_that_fails_and_one_that_does_not_read_slots_that_another_reads(
    machine: Machine, tmp_path: Path, clip: Path
) -> None:
    first, bad, good = (make_card_file(tmp_path / f"{n}.safetensors") for n in range(3))

    def build(config: ModelConfig, **how: Any) -> PlannedGpu:
        if config.weights != bad:
            return machine.build(config, **how)
        failing = Failing(how["image_hw"], how["batch"], how["gpu"], device=machine.device)
        machine.engines.append(failing)
        return failing

    with running(first, replay(YARD, clip), build=build, **LIVE) as service:
        service.wait(lambda: machine.num_read_there > 5)
        with pytest.raises(EngineError, match="its first results failed: it is no good"):
            service.supervisor.swap_model(bad).result(20)
        service.supervisor.swap_model(good).result(20)
        service.wait_for_frames(YARD, 3)
        frames = service.frames[YARD]
    assert [frame.frame_index for frame, _ in frames] == list(range(len(frames)))
    assert {frame.model for frame, _ in frames} == {0, 2}
    assert any(isinstance(engine, Failing) and engine.num_read_there for engine in machine.engines)


def test_a_camera_that_goes_gives_its_slots_back_and_others_keep_theirs(
    machine: Machine, card_file: Path, clip: Path
) -> None:
    sources = [replay(name, clip) for name in (YARD, DOOR)]
    with running(card_file, *sources, build=machine.build, **LIVE) as service:
        service.wait(lambda: machine.num_read_there > 10)
        service.wait_for_frames(DOOR, 5)
        service.supervisor.remove(DOOR)
        service.wait(lambda: service.is_gone(DOOR))
        pools = service.supervisor._crew._pools
        assert [name.partition("/")[0] for name in pools.gpu.names] == [
            service.supervisor.streams[YARD].branch.stream
        ]
        service.wait_for_frames(YARD, 5)
    machine.forget()
    gc.collect()
    assert machine.device.used_bytes == 0


def test_a_run_that_is_ended_at_once_leaves_nothing_on_the_device(
    machine: Machine, card_file: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its decoder is told to leave with pictures on their way, before the engine or after."""
    closed: list[SurfaceReader] = []
    close = SurfaceReader.close

    def note(reader: SurfaceReader) -> None:
        close(reader)
        closed.append(reader)

    monkeypatch.setattr(SurfaceReader, "close", note)
    with running(card_file, replay(YARD, clip), build=machine.build, **LIVE) as service:
        service.wait(lambda: machine.num_read_there > 5)
        service.supervisor.stop()
        service.supervisor.stop()
    assert len(closed) == 1  # which let go of its pictures once they were copied
    assert not service.supervisor._crew._pools.gpu.names
    machine.forget()
    gc.collect()
    assert machine.device.used_bytes == 0
