"""Models that change while cameras run: sentence 17 of the contract in `pipeline/runner.py`."""

import os
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.config import ModelConfig
from model.errors import ConfigError, EngineError, WeightsError
from pipeline.cameras import CameraConfig
from pipeline.config import Placement, SourceConfig
from pipeline.decoding.inputs import Source
from pipeline.models import UNKNOWN, successor
from tests.pipeline.scenes import CLASSES, SquareEngine, make_card_file, make_scene
from tests.pipeline.service import DOOR, YARD, Running, replay, running

BOTH = pytest.mark.parametrize("placement", ["threads", "processes"])
UNHURRIED: dict[str, Any] = {"source": SourceConfig(staleness_s=10), "window": 64}
"""What is lost then is not this machine's slowness."""
SWAPPED = ("tree", "person", "square")
"""The classes of another model: one more, and in another order."""


class NamedEngine(SquareEngine):
    """Behaves as the name of its weights says."""

    open_now = 0

    def __init__(self, config: ModelConfig, image_hw: tuple[int, int], batch: int) -> None:
        assert config.weights is not None
        self.kind = config.weights.stem
        if self.kind == "not-built":
            raise RuntimeError("no such\ninstruction")
        super().__init__(image_hw, batch, fail_at=5 if self.kind == "fails-late" else None)
        NamedEngine.open_now += 1
        if self.kind == "swapped":
            self.classes = SWAPPED  # type: ignore[assignment]
            self.output_shape = (batch, 4 + len(SWAPPED), self.output_shape[2])

    def infer(self, images: np.ndarray) -> np.ndarray:
        rows = super().infer(images)
        if self.kind == "swapped":
            rows[:, [4, 6]] = rows[:, [6, 4]]
        if self.kind == "no-numbers" and images.max() > 200:
            rows[:] = np.nan
        if self.kind == "kills-late" and images.max() > 200:
            os.kill(os.getpid(), signal.SIGKILL)
        return rows

    def close(self) -> None:
        if not self._pool._shutdown:
            NamedEngine.open_now -= 1
        super().close()


def build_named(config: ModelConfig, *, image_hw: tuple[int, int], batch: int = 1) -> NamedEngine:
    return NamedEngine(config, image_hw, batch)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "yard.mp4"
    return make_scene(path, num_frames=150, speed=1, bframes=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("first", "second", "not-built", "fails-late", "no-numbers", "kills-late"):
        make_card_file(tmp_path / f"{name}.safetensors")
    make_card_file(tmp_path / "swapped.safetensors", SWAPPED)
    return tmp_path


def weights(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


def assert_whole(service: Running, name: str) -> None:
    """Every frame was looked at once and in order, and the square kept its identity and class."""
    frames = [frame.frame_index for frame, _ in service.frames[name]]
    assert frames == list(range(len(frames)))
    assert service.supervisor.streams[name].counters.num_dropped == 0
    seen = {(*tracks.track_id, *tracks.class_id) for _, tracks in service.frames[name]}
    assert seen == {(1, CLASSES.index("square"))}


def models(service: Running, name: str) -> list[int]:
    return [frame.model for frame, _ in service.frames[name]]


@BOTH
def test_a_model_takes_over_between_two_frames_and_tracks_go_on(
    placement: Placement, folder: Path, clip: Path
) -> None:
    first = weights(folder, "first")
    with running(
        first, replay(YARD, clip), build=build_named, placement=placement, **UNHURRIED
    ) as service:
        service.wait_for_frames(YARD, 5)
        model = service.supervisor.swap_model(weights(folder, "swapped")).result(20)
        service.wait_for_frames(YARD, 5)
        assert service.supervisor.model is model
        assert service.supervisor.engines[-1].model == model.number == 1
        given = models(service, YARD)
        assert set(given) == {0, 1}
        assert all(before <= after for before, after in pairwise(given))
        if placement == "threads":
            service.wait(lambda: NamedEngine.open_now == 1)  # the old one's memory is given back
        else:
            crew = service.supervisor._crew
            (trunk,) = (p for p in list(crew._processes) if p.group == "trunk")
            os.kill(trunk.pid, signal.SIGKILL)
            service.wait(lambda: len(service.supervisor.replaced) == 1)
            service.wait_for_frames(YARD, 10)
            assert models(service, YARD)[-1] == 1
        assert_whole(service, YARD)
    assert NamedEngine.open_now == 0


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("not-built", "RuntimeError: no such instruction"),
        ("fails-late", "its first results failed: RuntimeError: the engine broke"),
        ("no-numbers", "its first results failed: its results are no numbers"),
    ],
)
def test_a_model_that_cannot_be_built_or_fails_at_first_leaves_the_one_before_at_work(
    name: str, reason: str, folder: Path, clip: Path
) -> None:
    first, second = weights(folder, "first"), weights(folder, "second")
    with running(first, replay(YARD, clip), build=build_named, **UNHURRIED) as service:
        service.wait_for_frames(YARD, 5)
        refusal = service.supervisor.swap_model(weights(folder, name)).exception(20)
        assert isinstance(refusal, EngineError)
        assert str(refusal) == f"{weights(folder, name)}: cannot take over: {reason}"
        assert service.supervisor.model.config.weights == first
        service.wait_for_frames(YARD, 10)
        assert models(service, YARD)[-5:] == [0] * 5
        assert service.supervisor.swap_model(second).result(20).number == 2  # a good one still may
        service.wait_for_frames(YARD, 5)
        service.wait(lambda: NamedEngine.open_now == 1)
        assert_whole(service, YARD)
    assert NamedEngine.open_now == 0


def test_a_model_that_ends_its_process_is_given_up_and_the_trunk_replaced_with_the_one_before(
    folder: Path, clip: Path
) -> None:
    first, bad = weights(folder, "first"), weights(folder, "kills-late")
    with running(
        first, replay(YARD, clip), build=build_named, placement="processes", **UNHURRIED
    ) as service:
        service.wait_for_frames(YARD, 5)
        refusal = service.supervisor.swap_model(bad).exception(20)
        assert "the process that tried it ended: it died" in str(refusal)
        service.wait_for_frames(YARD, 10)
        assert models(service, YARD)[-1] == 0
        assert_whole(service, YARD)


def test_without_a_frame_a_model_is_tried_on_a_picture_of_the_stated_size(
    folder: Path, clip: Path
) -> None:
    with running(weights(folder, "first"), build=build_named) as service:
        swap = service.supervisor.swap_model
        assert "no such" in str(swap(weights(folder, "not-built")).exception(20))
        assert swap(weights(folder, "second")).result(20).number == 2
        service.supervisor.add(replay(YARD, clip))
        service.wait_for_frames(YARD, 3)
        assert set(models(service, YARD)) == {2}


def test_files_that_are_broken_or_lack_classes_are_refused_at_once(
    folder: Path, clip: Path
) -> None:
    first = weights(folder, "first")
    (folder / "broken.safetensors").write_bytes(first.read_bytes()[:-2])
    trees = make_card_file(folder / "trees.safetensors", ("tree",))
    person = CameraConfig(classes=("person",))
    source = Source(name=DOOR, kind="replay", location=str(clip), camera=person)
    with running(first, source, build=build_named) as service:
        with pytest.raises(WeightsError, match="cut short"):
            service.supervisor.swap_model(folder / "broken.safetensors")
        with pytest.raises(ConfigError, match="looked for: person; name those"):
            service.supervisor.swap_model(trees)


def test_classes_get_the_numbers_the_service_knows(folder: Path) -> None:
    config = ModelConfig(weights=weights(folder, "first"))
    swapped = successor(config, weights(folder, "swapped"), CLASSES, CLASSES)
    assert swapped.class_map == (UNKNOWN, 1, 0)
    same = successor(config, weights(folder, "second"), CLASSES, CLASSES)
    assert same.class_map is None


@pytest.mark.slow
def test_other_weights_of_the_same_network_take_over_for_real(tmp_path: Path, clip: Path) -> None:
    """2026-11-21: 20 s on 2 busy cores, most of it three conversions by OpenVINO."""
    torch = pytest.importorskip("torch")
    from model.engines import build_engine
    from model.reparam import fuse
    from model.weights import save_weights
    from tests.model.builders import make_calm_detector, make_card

    files = []
    for seed in (1, 2):
        detector = make_calm_detector(num_classes=len(CLASSES))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in detector.parameters():
                weight += 0.01 * torch.randn(weight.shape, generator=generator)
        files.append(tmp_path / f"{seed}.safetensors")
        save_weights(files[-1], fuse(detector), make_card(classes=CLASSES))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(files[1].read_bytes().replace(b'"F32"', b'"F16"'))
    with running(files[0], replay(YARD, clip), build=build_engine, **UNHURRIED) as service:
        service.wait_for_frames(YARD, 3, timeout_s=60)
        with pytest.raises((EngineError, WeightsError)):
            service.supervisor.swap_model(broken).result(60)
        assert service.supervisor.swap_model(files[1]).result(60).config.weights == files[1]
        service.wait_for_frames(YARD, 3)
        frames = [frame.frame_index for frame, _ in service.frames[YARD]]
        assert frames == sorted(set(frames))
        assert set(models(service, YARD)) == {0, service.supervisor.model.number}
