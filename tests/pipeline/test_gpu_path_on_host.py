"""The engine for GPUs at the end of the pipeline, on a device that this processor plays.

What it finds in a clip is held against what the same network finds in canvases.
"""

import ctypes
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import pytest

from model.config import ModelConfig, Suppression
from model.cuda.engine import CudaEngine
from model.cuda.plan import EnginePlan, GpuWanted
from pipeline.cameras import CameraConfig
from pipeline.config import GpuConfig, OutputConfig, PipelineConfig, SlicesConfig, TrackingConfig
from pipeline.decoding import hardware
from pipeline.decoding.inputs import Source
from pipeline.job import Job
from pipeline.transport.devicepool import DevicePools
from pipeline.transport.memory import PoolDesk, Pools
from tests.model.cuda.fake_network import CELL, FakeNetwork, make_picture
from tests.model.cuda.host_device import HostDevice
from tests.model.cuda.host_kernels import build_host
from tests.model.cuda.serving import Asked
from tests.pipeline.decoding.played_nvdec import PlayedNvdec
from tests.pipeline.scenes import make_card_file, read_jsonl

WIDTH, HEIGHT, SIDE = 512, 320, 4 * CELL
NUM_FRAMES = 3
WINDOW = 2
BATCH = 5
CLASSES = ("red", "green", "blue")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return build_host(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_card_file(tmp_path_factory.mktemp("weights") / "card.safetensors", CLASSES)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_squares(tmp_path_factory.mktemp("clip") / "yard.mp4", NUM_FRAMES)


def make_squares(path: Path, num_frames: int) -> Path:
    """Coloured squares so far apart that no cell of a canvas sees two."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=Fraction(25))
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.options = {"preset": "ultrafast", "crf": "4", "g": "4"}
        for number in range(num_frames):
            picture = np.full((HEIGHT, WIDTH, 3), 20, np.uint8)
            for colour in range(3):
                left, top = SIDE * (number + colour), (SIDE + 2 * CELL) * colour
                square = picture[top : top + SIDE, left : left + SIDE]
                square[:], square[..., colour] = 40, 200
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
    return path


class OnCanvases:
    """The network as an engine for the processor."""

    name, precision, classes, num_requests = "canvases", "f32", CLASSES, 1
    takes, gives, has_room = "canvases", "predictions", True

    def __init__(self, image_hw: tuple[int, int], batch: int) -> None:
        anchors = image_hw[0] // CELL * (image_hw[1] // CELL)
        self.input_shape = (batch, *image_hw, 3)
        self.output_shape = (batch, 4 + len(CLASSES), anchors)

    def start(
        self,
        images: np.ndarray,
        predictions: np.ndarray,
        on_done: Callable[[BaseException | None], None],
    ) -> None:
        predictions[:] = FakeNetwork.on_canvases(images.copy())
        on_done(None)

    def close(self) -> None:
        pass


def build_on_canvases(_: Any, *, image_hw: tuple[int, int], batch: int) -> OnCanvases:
    return OnCanvases(image_hw, batch)


class OnDevice:
    """Builds the engine for GPUs on a device that is played."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.built: list[CudaEngine] = []
        self.device = HostDevice(library)

    def __call__(
        self, config: ModelConfig, *, image_hw: tuple[int, int], batch: int, gpu: GpuWanted
    ) -> CudaEngine:
        assert config.weights is not None
        plan = EnginePlan(
            weights=config.weights,
            canvas_hw=image_hw,
            looks=batch,
            number_format="f32",
            gpu=gpu,
        )
        self.built.append(CudaEngine(plan, self.device, FakeNetwork))
        return self.built[-1]


def boxes(
    weights: Path,
    folder: Path,
    clip: Path,
    camera: CameraConfig,
    slices: SlicesConfig | None,
    *,
    decode: Literal["nvdec", "cpu"] = "cpu",
) -> list[np.ndarray]:
    """What is found in each frame: left, top, right, bottom, and a thousand a class number."""
    config = PipelineConfig(
        model=ModelConfig(weights=weights, image_size=256),
        suppression=Suppression(max_iou=0.9),
        tracking=TrackingConfig(kind="none"),
        gpu=GpuConfig(batch_sizes=(BATCH,), file_batch=BATCH, arena_mib=8, decode=decode),
        window=WINDOW,
        slices=slices,
        output=OutputConfig(directory=folder),
    )
    source = Source(name="yard", kind="file", location=str(clip), camera=camera)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.job.find_sources", lambda _: (source,))
        job = Job(config, [str(clip)])
        job.run()
    assert job.complete, job.streams[0].reason + job.streams[0].trace
    return [
        np.array([(*o["xyxy"], 1000 * o["class_id"]) for o in line["objects"]])
        for line in read_jsonl(folder / "yard.jsonl")
    ]


CASES: dict[str, tuple[CameraConfig, SlicesConfig | None]] = {
    "whole": (CameraConfig(), None),
    "turned, in part, by slices": (
        CameraConfig(rotate_deg=90, region=(0.0, 0.1, 0.8, 1.0)),
        SlicesConfig(budget=5),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_the_gpu_finds_in_planes_is_what_the_processor_finds_in_canvases(
    case: str,
    library: ctypes.CDLL,
    weights: Path,
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    camera, slices = CASES[case]
    monkeypatch.setattr("pipeline.job.build_engine", build_on_canvases)
    expected = boxes(weights, tmp_path / "canvases", clip, camera, slices)
    on_device = OnDevice(library)
    monkeypatch.setattr("pipeline.job.build_engine", on_device)
    monkeypatch.setattr("pipeline.engines.choose_engine", lambda *_: "cuda")
    found = boxes(weights, tmp_path / "planes", clip, camera, slices)
    assert len(on_device.built) == 1
    assert min(map(len, expected)) >= 3
    assert on_device.built[0].input_shape[0] == (1 if slices is None else 5)
    assert on_device.built[0].num_staged == 0  # the device copies from where the decoder wrote
    assert not on_device.device.registered
    for ours, theirs in zip(found, expected, strict=True):
        apart = np.abs(ours[:, None] - theirs[None]).max(axis=2)
        # a score near the limit may fall on either side of it
        assert (apart.min(axis=0) < 0.5).mean() > 0.9
        assert (apart.min(axis=1) < 0.5).mean() > 0.9


def test_what_stays_on_the_gpu_is_found_as_what_comes_to_the_host_and_goes_back(
    library: ctypes.CDLL, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoder and engine on one device; to the bit, but for those before the engine was built."""
    clip = make_squares(tmp_path / "yard.mp4", 5)
    camera, slices = CASES["turned, in part, by slices"]
    monkeypatch.setattr("pipeline.engines.choose_engine", lambda *_: "cuda")
    monkeypatch.setattr(hardware, "HWAccel", lambda *_, **__: None)
    found, copied = [], []
    for stays in (False, True):
        machine = OnDevice(library)
        with monkeypatch.context() as patch:
            patch.setattr("pipeline.job.build_engine", machine)
            patch.setattr(
                hardware,
                "open_on_device",
                lambda parameters, _, machine=machine: PlayedNvdec(parameters, machine.device),
            )
            if not stays:
                patch.setattr(DevicePools, "offer", lambda *_: None)
            folder = tmp_path / str(stays)
            found.append(boxes(weights, folder, clip, camera, slices, decode="nvdec"))
        copied.append(len(machine.device.copied_rows))
    np.testing.assert_equal(found[0], found[1])
    assert min(map(len, found[0])) >= 3
    assert copied[0] == 0
    assert copied[1] >= 2 * (5 - WINDOW - 1)  # planes, of all that were not decoded by then


def test_a_slot_that_a_batch_may_still_read_is_not_written_again(
    library: ctypes.CDLL, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its request has ended, as the device hangs, and its frame is acknowledged."""
    monkeypatch.setattr("model.cuda.engine.HANG_S", 0.2)
    wanted = GpuWanted(
        device=0,
        batch_sizes=(1,),
        in_flight=1,
        window_ms=0,
        file_batch=1,
        arena_mib=1,
        suppression=Suppression(),
        class_ids=None,
    )
    machine = OnDevice(library)
    device = machine.device
    engine = machine(ModelConfig(weights=weights), image_hw=(32, 96), batch=1, gpu=wanted)
    picture = make_picture(seed=1)
    desk = PoolDesk()
    pools = Pools(desk)
    pool = pools.gpu.create(device, "yard/surfaces", picture.coded.num_bytes, 1)
    lease = pool.lease()
    assert lease is not None
    written = device.event()
    written.record(device.stream())
    lease.written(written)
    lease.publish(1)
    device.hold()
    asked = Asked(engine, replace(picture, pixels=pools.pixels(lease.slot)))
    assert "has not ended a batch" in str(asked.failure())
    lease.release(0)
    monkeypatch.setattr(device, "go_on", lambda: False)  # which asking for an event would have done
    assert pool.lease() is None
    monkeypatch.undo()
    device.release()
    engine.close()
    for _ in range(1000):
        device.go_on()
    assert pool.lease() is not None
    desk.close()
