"""Decoders' planes in slots, and what the detector is given of frames."""

from collections.abc import Iterator

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange

from model.cuda.coded import FORMATS, Coded
from model.slicing import Region, choose_looks
from pipeline.decoding.planes import copy_planes, plane_layout
from pipeline.decoding.scaling import FrameScaler
from pipeline.stages.imaging import CanvasImager, CodedImager

SIZES = [(320, 180), (641, 359), (1, 1), (66, 2)]
CANVAS_HW = (96, 160)


def made(width: int, height: int, pixel_format: str, seed: int = 0) -> av.VideoFrame:
    """A frame of noise."""
    random = np.random.default_rng(seed)
    frame = av.VideoFrame(width, height, pixel_format)
    for plane in frame.planes:
        values = random.integers(0, 256, plane.buffer_size, np.uint8)
        if "10" in pixel_format:
            values[1::2] &= 3
        plane.update(values.tobytes())
    return frame


def slot_of(frame: av.VideoFrame) -> tuple[Coded, np.ndarray]:
    coded = plane_layout(frame)
    assert coded is not None
    slot = np.full(coded.num_bytes, 7, np.uint8)
    copy_planes(frame, coded, slot)
    return coded, slot


def samples(coded: Coded, slot: np.ndarray) -> Iterator[np.ndarray]:
    """The three components as a reader finds them by the tables alone."""
    layout = FORMATS[coded.pixel_format]
    for part in layout.components:
        height, width = (-(-side >> shift) for side, shift in zip(
            coded.coded_hw, (part.shift_y, part.shift_x), strict=True
        ))  # fmt: skip
        rows = np.arange(height)[:, None] * coded.pitches[part.plane]
        at = coded.offsets[part.plane] + rows + part.first + np.arange(width) * part.step
        values = slot[at].astype(np.int64)
        if layout.wide:
            values += 256 * slot[at + 1].astype(np.int64)
        yield values >> layout.shift


def framed(coded: Coded, slot: np.ndarray) -> av.VideoFrame:
    """A frame again, of what lies in a slot."""
    height, width = coded.coded_hw
    frame = av.VideoFrame(width, height, coded.pixel_format)
    for plane, offset, pitch in zip(frame.planes, coded.offsets, coded.pitches, strict=True):
        rows = np.zeros((plane.buffer_size // plane.line_size, plane.line_size), np.uint8)
        kept = slot[offset : offset + plane.height * pitch].reshape(plane.height, pitch)
        common = min(pitch, plane.line_size)
        rows[: plane.height, :common] = kept[:, :common]
        plane.update(rows.tobytes())
    return frame


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("pixel_format", FORMATS)
def test_planes_are_copied_as_they_are(pixel_format: str, width: int, height: int) -> None:
    frame = made(width, height, pixel_format)
    coded, slot = slot_of(frame)
    assert (coded.pixel_format, coded.coded_hw) == (pixel_format, (height, width))
    assert all(offset % 64 == 0 for offset in (*coded.offsets, *coded.pitches))
    assert coded.num_bytes == coded.offsets[-1] + coded.pitches[-1] * frame.planes[-1].height
    layout = FORMATS[coded.pixel_format]
    for part, values in zip(layout.components, samples(coded, slot), strict=True):
        plane = frame.planes[part.plane]
        raw = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        across = part.first + np.arange(values.shape[1]) * part.step
        wanted = raw[: len(values), across].astype(np.int64)
        if layout.wide:
            wanted += 256 * raw[: len(values), across + 1].astype(np.int64)
        np.testing.assert_array_equal(values, wanted >> layout.shift)


@pytest.mark.parametrize("pixel_format", ["gray", "yuv422p10le", "yuva420p", "rgba", "yuv410p"])
def test_a_format_that_nobody_reads_is_turned_into_rgb_first(pixel_format: str) -> None:
    frame = made(64, 48, "rgb24").reformat(format=pixel_format)
    assert plane_layout(frame) is None
    scaler = FrameScaler(0)
    image = CodedImager().image(scaler, frame, [Region.whole((48, 64))], CANVAS_HW)
    assert image.coded is not None
    assert (image.coded.pixel_format, image.coded.matrix) == ("gbrp", "rgb")
    slot = np.empty(image.shape, np.uint8)
    image.write(slot)
    rgb = scaler.squared(frame).to_ndarray(format="rgb24")
    np.testing.assert_array_equal(np.dstack(list(samples(image.coded, slot))), rgb)


# fmt: off
COLOURS = [
    # format        width  space range            matrix    full
    ("yuv420p",       640, 2, ColorRange.UNSPECIFIED, "bt601",  False),
    ("yuv420p",      1280, 2, ColorRange.UNSPECIFIED, "bt709",  False),
    ("yuv420p",      1280, 5, ColorRange.MPEG,        "bt601",  False),
    ("yuv420p",       640, 6, ColorRange.MPEG,        "bt601",  False),
    ("nv12",          640, 1, ColorRange.JPEG,        "bt709",  True),
    ("yuvj420p",      640, 2, ColorRange.UNSPECIFIED, "bt601",  True),
    ("yuvj444p",      640, 1, ColorRange.JPEG,        "bt709",  True),
    ("p010le",       1280, 9, ColorRange.MPEG,        "bt2020", False),
    ("yuv420p10le",  1280, 9, ColorRange.JPEG,        "bt2020", True),
    ("rgb24",         640, 2, ColorRange.UNSPECIFIED, "rgb",    True),
    ("gbrp",         1280, 0, ColorRange.UNSPECIFIED, "rgb",    True),
]
# fmt: on


@pytest.mark.parametrize(("pixel_format", "width", "space", "range_", "matrix", "full"), COLOURS)
def test_matrix_and_range_are_told_as_the_scaler_decides_them(
    pixel_format: str, width: int, space: int, range_: ColorRange, matrix: str, full: bool
) -> None:
    frame = av.VideoFrame(width, 360, pixel_format)
    frame.colorspace, frame.color_range = space, range_
    coded = plane_layout(frame)
    assert coded is not None
    assert (coded.matrix, coded.full_range) == (matrix, full)


@pytest.mark.parametrize("space", [4, 7, 8, 10], ids=["fcc", "240m", "ycgco", "2020-constant"])
def test_a_matrix_that_nobody_reads_is_undone_first(space: int) -> None:
    frame = made(64, 48, "yuv420p")
    frame.colorspace = space
    assert plane_layout(frame) is None


@pytest.mark.parametrize("rotation_deg", [0, 90, 180, 270])
def test_a_slot_holds_all_that_canvases_are_made_of(rotation_deg: int) -> None:
    frame = made(640, 360, "yuv420p")
    scaler = FrameScaler(rotation_deg)
    upright_hw = scaler.upright_hw(frame)
    for regions in (
        [Region.whole(upright_hw)],
        list(choose_looks(upright_hw, CANVAS_HW, 5, 0.2)),
        [Region(40, 80, 200, 160)],
    ):
        image = CodedImager().image(scaler, frame, regions, CANVAS_HW)
        assert image.coded is not None
        assert image.coded.upright_hw == upright_hw
        assert image.coded.quarter_turns == rotation_deg // 90
        slot = np.empty(image.shape, np.uint8)
        image.write(slot)
        expected, found = (
            CanvasImager().image(FrameScaler(rotation_deg), each, regions, CANVAS_HW)
            for each in (frame, framed(image.coded, slot))
        )
        canvases = np.empty((2, *expected.shape), np.uint8)
        expected.write(canvases[0])
        found.write(canvases[1])
        np.testing.assert_array_equal(canvases[0], canvases[1])


@pytest.mark.parametrize("rotation_deg", [0, 90])
def test_oblong_pixels_are_left_to_the_engine_but_in_parts(rotation_deg: int) -> None:
    frame = made(360, 288, "yuv420p")
    scaler = FrameScaler(rotation_deg, 16 / 15)
    upright_hw = scaler.upright_hw(frame)
    whole = CodedImager().image(scaler, frame, [Region.whole(upright_hw)], CANVAS_HW).coded
    part = CodedImager().image(scaler, frame, [Region(0, 0, 96, 64)], CANVAS_HW).coded
    assert whole is not None
    assert part is not None
    assert (whole.pixel_format, whole.coded_hw) == ("yuv420p", (288, 360))
    assert (part.pixel_format, part.coded_hw) == ("gbrp", (288, 384))
    assert whole.upright_hw == part.upright_hw == upright_hw
