"""Tiles of decoded pictures: cut without a copy, and scaled like the whole."""

import os
from collections.abc import Sequence

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace

from model.letterbox import PAD
from model.slicing import Region, choose_looks
from pipeline.decoding.cropping import Cropper
from pipeline.decoding.scaling import FrameScaler
from tests.pipeline.decoding.test_scaling import BT601, BT709, inner, noisy_frame, reference_rgb

CANVAS_HW = (384, 640)


def planes(frame: av.VideoFrame) -> list[np.ndarray]:
    return [
        np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[
            : plane.height, : plane.width
        ]
        for plane in frame.planes
    ]


def address(pixels: np.ndarray) -> int:
    return int(pixels.__array_interface__["data"][0])


def cut_out(frame: av.VideoFrame, region: Region) -> av.VideoFrame:
    """The region of a 4:2:0 frame, copied by NumPy into a frame of its own."""
    tile = av.VideoFrame(region.width, region.height, frame.format.name)
    for plane, pixels, half in zip(tile.planes, planes(frame), (1, 2, 2), strict=True):
        top, left = region.top // half, region.left // half
        rows = np.zeros((plane.height, plane.line_size), np.uint8)
        rows[:, : plane.width] = pixels[top : top + plane.height, left : left + plane.width]
        plane.update(rows.tobytes())
    return tile


def looks(
    frame: av.VideoFrame, regions: Sequence[Region], scaler: FrameScaler | None = None
) -> np.ndarray:
    canvases = np.full((len(regions), *CANVAS_HW, 3), 7, np.uint8)
    (scaler or FrameScaler(0)).looks(frame, regions, canvases)
    return canvases


@pytest.mark.parametrize("size", [(1920, 1080), (1919, 1079)])
def test_a_region_shares_the_memory_of_its_frame(size: tuple[int, int]) -> None:
    frame = noisy_frame(*size)
    regions = choose_looks((size[1], size[0]), CANVAS_HW, 10, 0.2)[1:]
    for part, region in zip(Cropper(frame, regions).cut(frame), regions, strict=True):
        assert (part.width, part.height) == (region.width, region.height)
        whole = planes(frame)
        for pixels, expected, mine in zip(
            planes(part), planes(cut_out(frame, region)), whole, strict=True
        ):
            np.testing.assert_array_equal(pixels, expected)
            begin = mine.__array_interface__["data"][0]
            assert (
                begin <= pixels.__array_interface__["data"][0] < begin + mine.strides[0] * len(mine)
            )


# fmt: off
CASES = [
    # name             size          matrix             range            reference
    ("1080p-bt709",    (1920, 1080), Colorspace.ITU709, ColorRange.MPEG, BT709, False),
    ("1080p-full",     (1920, 1080), Colorspace.ITU709, ColorRange.JPEG, BT709, True),
    ("1080p-untold",   (1920, 1080), None,              ColorRange.MPEG, BT709, False),
    ("1080p-bt601",    (1920, 1080), Colorspace.ITU601, ColorRange.MPEG, BT601, False),
    ("odd",            (1921, 1079), Colorspace.ITU709, ColorRange.MPEG, BT709, False),
]
# fmt: on


@pytest.mark.parametrize(
    ("size", "matrix", "color_range", "weights", "full"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_a_tile_is_the_triangle_filter_of_its_part_of_the_frame(
    size: tuple[int, int],
    matrix: Colorspace | None,
    color_range: ColorRange,
    weights: tuple[float, float],
    full: bool,
) -> None:
    frame = noisy_frame(*size)
    if matrix is not None:
        frame.colorspace = matrix
    frame.color_range = color_range
    regions = choose_looks((size[1], size[0]), CANVAS_HW, 5, 0.2)
    assert len(regions) == 5
    canvases = looks(frame, regions)
    for place in (2, 3):  # one to the right, one below
        canvas, region = canvases[place], regions[place]
        letterbox = region.letterbox(CANVAS_HW)
        tile = cut_out(frame, region)
        expected = reference_rgb(tile, letterbox.resized_hw, weights, full=full)
        difference = np.abs(inner(canvas, letterbox) - expected)
        assert difference.mean() < 1
        assert np.percentile(difference, 99) <= 2
        inner(canvas, letterbox)[...] = PAD
        assert (canvas == PAD).all()


@pytest.mark.parametrize("pixel_format", ["yuv422p10le", "nv12", "yuv410p", "rgb24", "bgra"])
def test_tiles_of_any_pixel_format_are_cut_where_they_are(pixel_format: str) -> None:
    frame = noisy_frame(1920, 1080)
    frame.colorspace = Colorspace.ITU709
    regions = choose_looks((1080, 1920), CANVAS_HW, 5, 0.2)
    other = frame.reformat(format=pixel_format)
    difference = np.abs(looks(other, regions).astype(int) - looks(frame, regions))
    whole, *tiles = difference.mean(axis=(1, 2, 3))  # what the format loses is lost in both
    assert max(tiles) < 1.5 * whole + 0.5


@pytest.mark.parametrize("rotation_deg", [0, 90, 180, 270])
@pytest.mark.parametrize("size", [(1920, 1080), (1919, 1078)])
def test_tiles_of_a_turned_picture_are_those_of_the_picture_upright(
    rotation_deg: int, size: tuple[int, int]
) -> None:
    frame = noisy_frame(*size).reformat(format="rgb24")
    upright = np.ascontiguousarray(np.rot90(frame.to_ndarray(), rotation_deg // 90))
    source_hw = upright.shape[:2]
    regions = choose_looks(source_hw, CANVAS_HW, 10, 0.2)
    assert len(regions) > 4
    turned = looks(frame, regions, FrameScaler(rotation_deg))
    plain = looks(av.VideoFrame.from_ndarray(upright, format="rgb24"), regions)
    assert np.abs(turned.astype(int) - plain).max() <= 2


@pytest.mark.parametrize(("rotation_deg", "aspect"), [(0, 2.0), (90, 2.0), (0, 64 / 45)])
def test_tiles_of_oblong_pixels_are_those_of_the_square_picture(
    rotation_deg: int, aspect: float
) -> None:
    """Compared within the tiles, since the filter mixes across their edges on one side only."""
    frame = noisy_frame(960, 1080).reformat(format="rgb24")
    square = frame.reformat(width=round(960 * aspect), interpolation="BILINEAR").to_ndarray()
    upright = np.ascontiguousarray(np.rot90(square, rotation_deg // 90))
    regions = choose_looks(upright.shape[:2], CANVAS_HW, 5, 0.2)
    oblong = looks(frame, regions, FrameScaler(rotation_deg, aspect))
    plain = looks(av.VideoFrame.from_ndarray(upright, format="rgb24"), regions)
    assert len(regions) > 3
    assert np.abs(oblong[1:].astype(int) - plain[1:]).mean() < 1


def test_frames_of_another_size_or_format_may_follow() -> None:
    scaler = FrameScaler(0)
    for size, pixel_format in (
        ((1920, 1080), "yuv420p"),
        ((1280, 720), "yuv420p"),
        ((1280, 720), "yuv422p10le"),
        ((1920, 1080), "yuv420p"),
    ):
        frame = noisy_frame(*size).reformat(format=pixel_format)
        regions = choose_looks((size[1], size[0]), CANVAS_HW, 10, 0.2)
        np.testing.assert_array_equal(looks(frame, regions, scaler), looks(frame, regions))


def test_cutting_keeps_no_frame_and_starts_no_thread() -> None:
    threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208 - it is no tree of files
    scaler, regions = FrameScaler(0), choose_looks((1080, 1920), CANVAS_HW, 17, 0.2)
    looks(grey_frame(), regions, scaler)
    assert len(os.listdir("/proc/self/task")) == threads  # noqa: PTH208
    before = resident_mib()
    for _ in range(40):
        looks(grey_frame(), regions, scaler)
    assert resident_mib() - before < 60  # of 120 MiB in 40 frames


def grey_frame() -> av.VideoFrame:
    frame = av.VideoFrame(1920, 1080, "yuv420p")
    for plane in frame.planes:
        plane.update(bytes([128]) * plane.buffer_size)
    return frame


def resident_mib() -> float:
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * 4096 / 2**20
