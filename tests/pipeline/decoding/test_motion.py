"""When a fixed camera's picture counts as still."""

from collections.abc import Sequence

import av
import numpy as np
import pytest

from pipeline.config import GateConfig
from pipeline.decoding.motion import MotionGate

STEP_NS = 40_000_000
GROUND = np.kron(
    np.random.default_rng(0).integers(40, 200, (54, 96)), np.ones((10, 10), np.int64)
).astype(np.uint8)
"""540 x 960 levels of a scene with edges everywhere."""


def picture(
    person: tuple[int, int, int, int] | None = None,
    *,
    light: float = 0,
    noise: float = 0,
    seed: int = 0,
    pixel_format: str = "yuv420p",
) -> av.VideoFrame:
    """The scene, with a person of this left, top, width and height."""
    luma = GROUND.astype(np.float64) + light
    if person is not None:
        left, top, width, height = person
        luma[top : top + height, left : left + width] = 15
    if noise:
        luma += np.random.default_rng(seed).normal(0, noise, luma.shape)
    grey = np.clip(luma, 0, 255).astype(np.uint8)
    return av.VideoFrame.from_ndarray(grey, format="gray").reformat(format=pixel_format)


def decisions(gate: MotionGate, frames: Sequence[av.VideoFrame], first: int = 0) -> list[bool]:
    return [gate.opens(frame, (first + at) * STEP_NS) for at, frame in enumerate(frames)]


def test_the_first_picture_is_looked_at_and_still_ones_after_it_are_not() -> None:
    assert decisions(MotionGate(GateConfig()), [picture()] * 20) == [True] + [False] * 19


@pytest.mark.parametrize("pixel_format", ["yuv420p", "nv12", "yuv422p10le", "rgb24", "gray"])
def test_a_small_far_person_opens_the_gate(pixel_format: str) -> None:
    gate = MotionGate(GateConfig())
    empty = picture(pixel_format=pixel_format)
    walking = picture((450, 250, 20, 45), pixel_format=pixel_format)
    assert decisions(gate, [empty, empty, walking]) == [True, False, True]


def test_noise_does_not_open_it() -> None:
    gate = MotionGate(GateConfig())
    noisy = [picture(noise=8, seed=seed) for seed in range(20)]
    assert decisions(gate, noisy) == [True] + [False] * 19


def test_one_bright_cell_does_not_open_it() -> None:
    gate = MotionGate(GateConfig())
    assert decisions(gate, [picture(), picture((480, 240, 6, 6))]) == [True, False]


def test_light_that_drifts_slowly_adds_up_and_opens_it() -> None:
    gate = MotionGate(GateConfig(refresh_s=3600, hold_s=0))
    opened = decisions(gate, [picture(light=0.25 * step) for step in range(100)])
    assert 2 <= sum(opened[1:]) <= 6
    assert not any(opened[1:20])


def test_after_the_last_movement_it_stays_open_for_the_hold() -> None:
    gate = MotionGate(GateConfig(hold_s=0.2))
    frames = [picture(), picture((450, 250, 30, 45)), *[picture((470, 250, 30, 45))] * 10]
    opened = decisions(gate, frames)
    assert opened == [True] * 7 + [False] * 5  # the last movement is the one of the third


def test_it_opens_after_the_refresh_by_pts() -> None:
    gate = MotionGate(GateConfig(refresh_s=0.4))
    opened = decisions(gate, [picture()] * 31)
    assert [at for at, look in enumerate(opened) if look] == [0, 10, 20, 30]


def test_a_step_back_in_time_opens_it() -> None:
    gate = MotionGate(GateConfig())
    assert gate.opens(picture(), 100 * STEP_NS)
    assert not gate.opens(picture(), 101 * STEP_NS)
    assert gate.opens(picture(), 50 * STEP_NS)


def test_a_share_that_must_move_is_asked_for() -> None:
    person = picture((450, 200, 60, 120))  # 1.4 % of the picture
    for share, opens in ((0.005, True), (0.05, False)):
        gate = MotionGate(GateConfig(least_share=share))
        assert decisions(gate, [picture(), person]) == [True, opens]


def test_what_is_forgotten_is_looked_at_anew_without_a_hold() -> None:
    gate = MotionGate(GateConfig())
    decisions(gate, [picture(), picture((450, 250, 30, 45))])
    gate.forget()
    assert decisions(gate, [picture((450, 250, 30, 45))] * 4, first=2) == [True] + [False] * 3


def test_it_begins_anew_at_key_pictures_a_refresh_apart() -> None:
    gate = MotionGate(GateConfig(refresh_s=1.0))
    keys = [0.0, 0.4, 0.8, 1.2, 1.6, 2.0, 2.4, 5.0, 4.0, 4.4]
    begun = [key for key in keys if gate.begin_at(round(key * 1e9))]
    assert begun == [0.0, 1.2, 2.4, 5.0, 4.0]


@pytest.mark.parametrize("step", [1, 3])
def test_a_gate_that_begins_where_another_did_decides_the_same(step: int) -> None:
    """As when a decoder is replaced; `step` as `detect_every` lets pictures by without a look."""
    random, at, frames = np.random.default_rng(1), 100, []
    for _ in range(150):
        at += int(random.choice([0, 0, 0, 0, 25]))
        frames.append(picture((at % 900, 250, 30, 60), noise=3, seed=len(frames)))

    def play(first: int) -> tuple[list[bool], list[int]]:
        gate, opened, begun = MotionGate(GateConfig(hold_s=0.1, refresh_s=1.0)), [], []
        for index in range(first, len(frames)):
            if index % 10 == 0 and gate.begin_at(index * STEP_NS):
                begun.append(index)
            if index % step == 0:
                opened.append(gate.opens(frames[index], index * STEP_NS))
        return opened, begun

    whole, places = play(0)
    assert True in whole[40:]
    assert False in whole[40:]
    assert len(places) > 3
    for place in places:
        opened, begun = play(place)
        assert opened == whole[-len(opened) :]
        assert begun == [later for later in places if later >= place]
