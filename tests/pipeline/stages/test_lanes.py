"""What an engine is given of a frame, and when it is given another."""

from typing import Any

import numpy as np
import pytest

from model.config import ModelConfig
from model.cuda.coded import Coded, CodedPicture
from model.slicing import Region
from pipeline.messages import Frame, Part, Slot
from pipeline.models import ModelInUse
from pipeline.stages.lanes import Runner, images_of, shape_of
from pipeline.transport.memory import PoolDesk, Pools
from tests.pipeline.scenes import SquareEngine

PIXELS = np.zeros(96, np.uint8)
CODED = Coded(
    pixel_format="yuv420p",
    coded_hw=(8, 8),
    offsets=(0, 64, 80),
    pitches=(8, 4, 4),
    matrix="bt601",
    full_range=False,
    upright_hw=(8, 8),
    num_bytes=96,
)


def frame(**more: Any) -> Frame:
    return Frame(
        stream="yard",
        frame_index=0,
        pts_ns=0,
        duration_ns=1,
        captured_ns=0,
        image=Slot(pool="yard/images", index=0, generation=1, shape=(96,)),
        canvas_hw=(32, 64),
        source_hw=(40, 60),
        regions=(Region(0, 0, 60, 40), Region(20, 8, 30, 20)),
        part=Part(picture_hw=(100, 100), origin_xy=(12, 24)),
        **more,
    )


def test_regions_of_a_coded_picture_lie_in_the_whole_of_it() -> None:
    picture = images_of(frame(coded=CODED), PIXELS)
    assert isinstance(picture, CodedPicture)
    assert picture.pixels is PIXELS
    assert picture.coded is CODED
    assert picture.regions == (Region(12, 24, 60, 40), Region(32, 32, 30, 20))


@pytest.mark.parametrize(("expires_ns", "fixed"), [(None, True), (7, False)])
def test_frames_of_files_go_in_batches_of_one_size(expires_ns: int | None, fixed: bool) -> None:
    """They are the ones that are never late."""
    picture = images_of(frame(coded=CODED, expires_ns=expires_ns), PIXELS)
    assert isinstance(picture, CodedPicture)
    assert picture.fixed is fixed


def test_canvases_are_given_as_they_are() -> None:
    assert images_of(frame(), PIXELS) is PIXELS
    assert shape_of(frame()) == shape_of(frame(coded=CODED)) == (2, 32, 64, 3)


def test_an_engine_without_room_is_given_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = PoolDesk()
    engine = SquareEngine((32, 64))
    runner = Runner(engine, ModelInUse(config=ModelConfig()), Pools(desk))
    monkeypatch.setattr(engine, "has_room", False)
    assert runner.lease() is None
    monkeypatch.setattr(engine, "has_room", True)
    assert runner.lease() is not None
    runner.num_running = engine.num_requests
    assert runner.lease() is None
    engine.close()
    desk.close()
