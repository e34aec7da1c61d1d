# SPDX-License-Identifier: Apache-2.0
"""The preprocessing kernel's own text against a filter in float64, on random and real pictures."""

from pathlib import Path

import numpy as np
import pytest

from model.cuda.coded import FORMATS, ColourMatrix, PixelFormat
from model.cuda.plan import NumberFormat
from model.letterbox import PAD
from model.slicing import Region, choose_looks
from tests.model.cuda.coded_pictures import Shot, make_shot
from tests.model.cuda.host_kernels import HostMachine
from tests.model.cuda.kernels import Kernels

CANVAS_HW = (96, 160)
SIZES = (
    (360, 640), (96, 160), (40, 56), (359, 641), (38, 22), (1, 1), (3, 2000), (300, 2), (33, 3000),
    (3000, 34),
)  # fmt: skip
"""Shrunk, as large as it comes out, enlarged, odd, and oblong beyond reason."""
NEAR = 1e-3
"""Levels: what float32 may differ from float64, far below the two levels that are allowed."""


def levels(canvas: np.ndarray) -> np.ndarray:
    return canvas.astype(np.float64) * 255


def assert_near(canvases: np.ndarray, shots: list[Shot], most: float = NEAR) -> None:
    for canvas, shot in zip(canvases, shots, strict=True):
        difference = np.abs(levels(canvas) - shot.expected(canvas.shape[1:]))
        assert difference.max() <= most, (shot.coded, shot.region)


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_the_canvas_is_the_triangle_filter_of_the_picture(
    kernels: Kernels, pixel_format: PixelFormat
) -> None:
    """Upright, and turned by one of the other three."""
    shots = [
        make_shot(pixel_format, hw, quarter_turns=turns)
        for place, hw in enumerate(SIZES)
        for turns in (0, place % 3 + 1)
    ]
    assert_near(kernels.letterbox(shots, CANVAS_HW), shots)


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
@pytest.mark.parametrize("pixel_format", ["nv12", "p010le", "yuv420p10le"])
def test_colours_are_those_of_the_matrix_and_the_range(
    kernels: Kernels, pixel_format: PixelFormat, matrix: ColourMatrix, full_range: bool
) -> None:
    shots = [make_shot(pixel_format, (64, 96), matrix=matrix, full_range=full_range)]
    assert_near(kernels.letterbox(shots, (32, 48)), shots)


@pytest.mark.parametrize("pitch_multiple", [1, 2, 4, 8])
@pytest.mark.parametrize("pixel_format", ["nv12", "yuv420p", "rgb24"])
def test_rows_may_be_padded_to_anything(
    kernels: Kernels, pixel_format: PixelFormat, pitch_multiple: int
) -> None:
    shots = [
        make_shot(pixel_format, hw, pitch_multiple=pitch_multiple, quarter_turns=turns)
        for hw in ((61, 103), (60, 102), (1, 1), (9, 1), (9, 2))
        for turns in (0, 1)
    ]
    assert_near(kernels.letterbox(shots, (40, 64)), shots)


def test_a_batch_of_pictures_of_all_kinds_is_each_of_them_alone(kernels: Kernels) -> None:
    turns = iter(range(100))
    shots = [
        make_shot(pixel_format, hw, quarter_turns=next(turns) % 4)
        for pixel_format in FORMATS
        for hw in ((50, 90), (33, 31))
    ]
    together = kernels.letterbox(shots, (48, 64))
    for shot, canvas in zip(shots, together, strict=True):
        np.testing.assert_array_equal(kernels.letterbox([shot], (48, 64))[0], canvas)


@pytest.mark.parametrize("quarter_turns", [0, 1])
def test_oblong_pixels_become_square(kernels: Kernels, quarter_turns: int) -> None:
    shots = [
        make_shot("nv12", (96, 160), square_hw=square, quarter_turns=quarter_turns)
        for square in ((96, 320), (96, 145))
    ]
    assert_near(kernels.letterbox(shots, CANVAS_HW), shots)
    shown = np.abs(levels(kernels.letterbox(shots[:1], CANVAS_HW)[0]) - PAD).max(axis=0) > 1
    sides = (shown.any(axis=1).sum(), shown.any(axis=0).sum())
    assert sides == ((48, 160) if quarter_turns == 0 else (96, 29))


@pytest.mark.parametrize("quarter_turns", [0, 1, 2, 3])
@pytest.mark.parametrize("pixel_format", ["nv12", "yuv420p", "yuv422p", "rgb24", "p010le"])
def test_parts_are_cut_as_they_are_chosen(
    kernels: Kernels, pixel_format: PixelFormat, quarter_turns: int
) -> None:
    whole = make_shot(pixel_format, (151, 203), quarter_turns=quarter_turns)
    regions = choose_looks(whole.coded.upright_hw, (64, 64), 10, 0.2)
    assert len(regions) > 4
    shots = [whole.of(region) for region in regions]
    assert_near(kernels.letterbox(shots, (64, 64)), shots)


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_a_part_sees_nothing_beside_it(kernels: Kernels, pixel_format: PixelFormat) -> None:
    """Everything but the part's own samples is as bright as it can be, once, and dark, once."""
    region = Region(44, 20, 60, 32)
    shot = make_shot(pixel_format, (80, 144)).of(region)
    canvases = []
    for value in (0, 255):
        pixels = np.full_like(shot.pixels, value)
        copy_part(shot, region, pixels)
        canvases.append(kernels.letterbox([Shot(shot.coded, pixels, region)], (40, 56))[0])
    np.testing.assert_array_equal(*canvases)
    assert_near(np.stack(canvases[:1]), [shot])


def copy_part(shot: Shot, region: Region, to: np.ndarray) -> None:
    """Copy a region's samples, which begin and end on whole ones, into a slot of the same kind."""
    layout = FORMATS[shot.coded.pixel_format]
    item = 2 if layout.wide else 1
    for each in layout.components:
        offset, pitch = shot.coded.offsets[each.plane], shot.coded.pitches[each.plane]
        for row in range(region.top >> each.shift_y, region.top + region.height >> each.shift_y):
            for column in range(
                region.left >> each.shift_x, region.left + region.width >> each.shift_x
            ):
                at = offset + row * pitch + column * each.step + each.first
                to[at : at + item] = shot.pixels[at : at + item]


def test_what_the_picture_does_not_fill_is_padding(kernels: Kernels) -> None:
    canvases = kernels.letterbox([make_shot("nv12", (90, 64)), None], (72, 104))
    shown = np.abs(levels(canvases) - PAD).max(axis=1) > 1e-4
    assert not shown[1].any()
    assert list(np.flatnonzero(shown[0].any(axis=0))) == list(range(26, 77))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("number_format", ["f32", "f16", "bf16"])
def test_every_number_is_written(
    kernels: Kernels, number_format: NumberFormat, channels_last: bool
) -> None:
    """And once, which the host's machine watches; canvases are no multiple of a tile."""
    shots = [make_shot("nv12", (50, 90)), None, make_shot("rgb24", (90, 50))]
    made = kernels.letterbox(
        shots, (41, 67), number_format=number_format, channels_last=channels_last
    )
    assert np.isfinite(made).all()
    np.testing.assert_array_equal(
        made, kernels.letterbox(shots, (41, 67), number_format=number_format)
    )


@pytest.mark.parametrize("seed", [1, 7])
def test_blocks_and_threads_may_run_in_any_order(host: HostMachine, seed: int) -> None:
    shots = [make_shot("nv12", (180, 320)), make_shot("bgr24", (61, 33), quarter_turns=1)]
    forward = Kernels(host).letterbox(shots, CANVAS_HW)
    other = Kernels(host.in_order(seed)).letterbox(shots, CANVAS_HW)
    np.testing.assert_array_equal(other, forward)


def test_half_and_bfloat_are_the_nearest(kernels: Kernels) -> None:
    """Over all levels, finely: a slope of 10 bits, enlarged."""
    slope = make_shot("yuv420p10le", (4, 1024), full_range=True)
    samples = slope.pixels.view("<u2")
    samples[:] = 512
    samples[: 4 * 1024] = np.tile(np.arange(1024), 4)
    exact = kernels.letterbox([slope], (32, 1984))
    half = kernels.letterbox([slope], (32, 1984), number_format="f16")
    np.testing.assert_array_equal(half, exact.astype(np.float16).astype(np.float32))
    brain = kernels.letterbox([slope], (32, 1984), number_format="bf16")
    bits = exact.view(np.uint32).astype(np.uint64)
    nearest = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16
    np.testing.assert_array_equal(brain, nearest.astype(np.uint32).view(np.float32))
    assert len(np.unique(exact)) > 1000


@pytest.mark.needs_data
@pytest.mark.parametrize(
    "clip", ["highway-1280x720.mp4", "night-street-426x240.mp4", "car-detection.mp4"]
)
def test_real_frames_come_as_the_processor_scales_them(
    kernels: Kernels, data: Path, clip: str
) -> None:
    """But for whole levels, and for where swscale takes samples of colour to lie."""
    import av

    from pipeline.decoding.scaling import FrameScaler

    with av.open(str(data / "clips" / clip)) as container:
        frame = next(container.decode(video=0))
    shot = shot_of(frame)
    made = kernels.letterbox([shot], (384, 640))
    assert_near(made, [shot])
    canvas = np.empty((384, 640, 3), np.uint8)
    FrameScaler(0).letterboxed(frame, shot.region.letterbox((384, 640)), canvas)
    difference = levels(made[0]).transpose(1, 2, 0) - canvas
    assert np.abs(difference).mean() < 1
    luma = difference @ (0.299, 0.587, 0.114)
    assert np.percentile(np.abs(luma), 95) <= 2


def shot_of(frame: "av.VideoFrame") -> Shot:  # type: ignore[name-defined] # noqa: F821
    """A frame of 4:2:0 as the processor decodes it."""
    from pipeline.decoding.scaling import matrix_to_keep

    empty = make_shot(
        "yuv420p",
        (frame.height, frame.width),
        matrix=matrix_to_keep(frame),
        full_range=frame.color_range == 2,
    )
    pixels = empty.pixels.copy()
    for plane, offset, pitch in zip(
        frame.planes, empty.coded.offsets, empty.coded.pitches, strict=True
    ):
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        slot = pixels[offset : offset + plane.height * pitch].reshape(plane.height, pitch)
        slot[:, : plane.width] = rows[: plane.height, : plane.width]
    return Shot(empty.coded, pixels, empty.region)
