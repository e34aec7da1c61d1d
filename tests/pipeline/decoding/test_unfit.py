# SPDX-License-Identifier: Apache-2.0
"""Pictures that show nothing of what is there: frozen ones, and ones made after a loss."""

import av
import numpy as np
import pytest

from pipeline.decoding.damage import DamageWatch
from pipeline.decoding.freezing import FreezeWatch

STEP_NS = 40_000_000
MADE = "/dev/null"
NOISE = np.random.default_rng(7)


def frame(luma: np.ndarray, blue: int = 90, red: int = 160) -> av.VideoFrame:
    height, width = luma.shape
    chroma = [np.full((height // 2, width // 2), value, np.uint8) for value in (blue, red)]
    planes = np.concatenate([part.reshape(-1, width) for part in (luma, *chroma)])
    return av.VideoFrame.from_ndarray(planes, format="yuv420p")


def scene() -> np.ndarray:
    return (np.add.outer(np.arange(96), np.arange(128)) % 200 + 20).astype(np.uint8)


def frozen_from(pictures: list[np.ndarray], frozen_s: float = 1) -> list[int]:
    watch = FreezeWatch(frozen_s)
    return [n for n, picture in enumerate(pictures) if watch.is_frozen(frame(picture), n * STEP_NS)]


def test_a_picture_that_stays_the_same_to_the_last_bit_is_frozen_until_it_changes() -> None:
    assert frozen_from([scene()] * 30 + [255 - scene()] * 5) == list(range(25, 30))


def test_a_quiet_scene_with_a_sensor_s_noise_is_not_frozen() -> None:
    noisy = [scene() + (NOISE.random((96, 128)) < 0.01) for _ in range(60)]
    assert frozen_from([picture.astype(np.uint8) for picture in noisy]) == []


def test_a_clock_in_a_corner_shows_that_a_still_picture_lives() -> None:
    pictures = []
    for n in range(100):
        picture = scene()
        picture[3:6, 100:110] = n // 25 * 50  # between the rows that are looked at first
        pictures.append(picture)
    assert frozen_from(pictures, 2) == []


def test_a_new_connection_has_all_its_time() -> None:
    watch = FreezeWatch(1)
    assert not watch.is_frozen(frame(scene()), 0)
    watch.forget()
    assert not watch.is_frozen(frame(scene()), 10 * STEP_NS)
    assert not watch.is_frozen(frame(scene()), 30 * STEP_NS)
    assert watch.is_frozen(frame(scene()), 36 * STEP_NS)


GREY_WITH_A_TRACE = np.where(np.arange(128) < 30, scene(), 128).astype(np.uint8)


def grey() -> av.VideoFrame:
    damaged = frame(GREY_WITH_A_TRACE, 128, 128)
    damaged.pict_type = av.video.frame.PictureType.P
    return damaged


@pytest.mark.parametrize(
    ("picture", "damaged"),
    [
        (grey(), True),
        (frame(np.full((96, 128), 128, np.uint8), 128, 128), True),
        (frame(scene(), 0, 0), True),
        (frame(np.full((96, 128), 16, np.uint8)), True),
        (frame(scene()), False),
        (frame(scene(), 128, 128), False),  # a camera at night
    ],
    ids=["grey", "all-grey", "green", "flat", "scene", "night"],
)
def test_only_after_a_fault_and_until_the_next_key_picture_is_damage_looked_for(
    picture: av.VideoFrame, damaged: bool
) -> None:
    watch = DamageWatch()
    assert not watch.shows_in(picture)
    watch.on_fault()
    assert watch.shows_in(picture) is damaged
    assert watch.shows_in(picture) is damaged
    watch.on_fault()
    with av.open(MADE, "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuvj420p"
        key = stream.encode(picture.reformat(format="yuvj420p"))
        (again,) = av.CodecContext.create("mjpeg", "r").decode(key[0])
    assert again.key_frame
    assert not watch.shows_in(again)
    assert not watch.shows_in(picture)
