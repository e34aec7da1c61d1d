"""Pictures scaled from the decoder's own pixels, against a filter in float64."""

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from model.letterbox import PAD, Letterbox
from pipeline import nv12
from pipeline.decoding.scaling import FrameScaler, matrix_to_keep
from tests.model.cuda.reference import resized
from tests.pipeline.pictures import bgr_of

BT601, BT709 = (0.299, 0.114), (0.2126, 0.0722)


def reference_rgb(
    frame: av.VideoFrame, hw: tuple[int, int], kr_kb: tuple[float, float], *, full: bool
) -> np.ndarray:
    """The frame's planes scaled one by one, then turned into RGB, all in float64."""
    planes = [
        np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[
            : plane.height, : plane.width
        ]
        for plane in frame.planes
    ]
    luma, blue, red = (resized(plane, hw) for plane in planes)
    if full:
        luma, blue, red = luma / 255, (blue - 128) / 255, (red - 128) / 255
    else:
        luma, blue, red = (luma - 16) / 219, (blue - 128) / 224, (red - 128) / 224
    kr, kb = kr_kb
    r, b = luma + 2 * (1 - kr) * red, luma + 2 * (1 - kb) * blue
    g = (luma - kr * r - kb * b) / (1 - kr - kb)
    return np.clip(np.stack((r, g, b), axis=-1) * 255, 0, 255)


def noisy_frame(width: int, height: int, seed: int = 0) -> av.VideoFrame:
    """Blobs, edges and some noise in YUV 4:2:0, within the limited range."""
    rng = np.random.default_rng(seed)
    frame = av.VideoFrame(width, height, "yuv420p")
    for plane in frame.planes:
        down, across = np.mgrid[: plane.height, : plane.width]
        waves = np.sin(down / plane.height * 17) * np.cos(across / plane.width * 23)
        edges = ((down // 9 + across // 13) % 2) * 24
        values = 128 + 50 * waves + edges + rng.integers(-8, 9, waves.shape)
        rows = np.zeros((plane.height, plane.line_size), np.uint8)
        rows[:, : plane.width] = np.clip(values, 40, 215)
        plane.update(rows.tobytes())
    return frame


def letterboxed(
    frame: av.VideoFrame, canvas_hw: tuple[int, int], rotation_deg: int = 0
) -> tuple[np.ndarray, Letterbox]:
    scaler = FrameScaler(rotation_deg)
    letterbox = Letterbox.fit(scaler.upright_hw(frame), canvas_hw)
    canvas = np.full((*canvas_hw, 3), 7, np.uint8)
    scaler.letterboxed(frame, letterbox, canvas)
    return canvas, letterbox


def inner(canvas: np.ndarray, letterbox: Letterbox) -> np.ndarray:
    top, left = letterbox.pad_top_px, letterbox.pad_left_px
    height, width = letterbox.resized_hw
    return canvas[top : top + height, left : left + width]


def full_size(
    frame: av.VideoFrame,
    rotation_deg: int = 0,
    pixel_aspect: float = 1.0,
    matrix: nv12.Matrix | None = None,
) -> np.ndarray:
    """The viewer's picture; what is not written to stays 7."""
    scaler = FrameScaler(rotation_deg, pixel_aspect)
    picture = np.full(nv12.shape(scaler.upright_hw(frame)), 7, np.uint8)
    scaler.full_size(frame, picture, matrix or matrix_to_keep(frame))
    return picture


def plane(frame: av.VideoFrame, index: int) -> np.ndarray:
    each = frame.planes[index]
    return np.frombuffer(memoryview(each), np.uint8).reshape(-1, each.line_size)[
        : each.height, : each.width
    ]


# fmt: off
CASES = [
    # name             size          matrix          range            reference
    ("1080p-bt709",    (1920, 1080), Colorspace.ITU709, ColorRange.MPEG, BT709, False),
    ("1080p-bt601",    (1920, 1080), Colorspace.ITU601, ColorRange.MPEG, BT601, False),
    ("1080p-full",     (1920, 1080), Colorspace.ITU709, ColorRange.JPEG, BT709, True),
    ("1080p-untold",   (1920, 1080), None,              ColorRange.MPEG, BT709, False),
    ("wide-untold",    (1280, 544),  None,              ColorRange.MPEG, BT709, False),
    ("tall-untold",    (1024, 768),  None,              ColorRange.MPEG, BT709, False),
    ("small-untold",   (720, 576),   None,              ColorRange.MPEG, BT601, False),
    ("odd",            (641, 359),   Colorspace.ITU601, ColorRange.MPEG, BT601, False),
    ("enlarged",       (320, 180),   Colorspace.ITU601, ColorRange.MPEG, BT601, False),
]
# fmt: on


@pytest.mark.parametrize(
    ("size", "matrix", "color_range", "weights", "full"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_the_picture_is_the_triangle_filter_of_the_frame(
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
    canvas, letterbox = letterboxed(frame, (384, 640))
    expected = reference_rgb(frame, letterbox.resized_hw, weights, full=full)
    difference = np.abs(inner(canvas, letterbox) - expected)
    assert difference.mean() < 1
    assert np.percentile(difference, 99) <= 2
    assert difference.max() <= 6


@pytest.mark.parametrize(
    ("rotation_deg", "pixel_aspect", "hw"),
    [(0, 2.0, (96, 320)), (90, 2.0, (320, 96)), (0, 10 / 11, (96, 145)), (0, 1.0, (96, 160))],
)
def test_oblong_pixels_become_square(
    rotation_deg: int, pixel_aspect: float, hw: tuple[int, int]
) -> None:
    """Left half black, right half white, before and after."""
    pixels = np.zeros((96, 160, 3), np.uint8)
    pixels[:, 80:] = 255
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
    scaler = FrameScaler(rotation_deg, pixel_aspect)
    assert scaler.upright_hw(frame) == hw
    letterbox = Letterbox.fit(hw, (160, 160))
    canvas = np.empty((160, 160, 3), np.uint8)
    scaler.letterboxed(frame, letterbox, canvas)
    picture = bgr_of(full_size(frame, rotation_deg, pixel_aspect), "bt601")
    for seen in (inner(canvas, letterbox), picture[: hw[0], : hw[1]]):
        long_axis = int(seen.shape[1] > seen.shape[0])
        sides = np.split(np.moveaxis(seen, long_axis, 0), [seen.shape[long_axis] // 2])
        means = sorted(half.mean() for half in sides)
        assert means[0] < 10
        assert means[1] > 245


def test_what_the_picture_does_not_fill_is_padding() -> None:
    canvas, letterbox = letterboxed(noisy_frame(640, 360), (416, 704))
    inner(canvas, letterbox)[...] = PAD
    assert (canvas == PAD).all()


@pytest.mark.parametrize(
    ("rotation_deg", "corner"),
    [(0, "upper left"), (90, "lower left"), (180, "lower right"), (270, "upper right"),
     (-90, "upper right"), (-180, "lower right")],
)  # fmt: skip
def test_a_marked_corner_is_where_a_viewer_sees_it(rotation_deg: int, corner: str) -> None:
    """The mark is in the upper left corner of what was coded; rotation is counter-clockwise."""
    pixels = np.zeros((96, 160, 3), np.uint8)
    pixels[:40, :40] = 255, 0, 0
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
    canvas, letterbox = letterboxed(frame, (160, 160), rotation_deg)
    scaler = FrameScaler(rotation_deg)
    picture = bgr_of(full_size(frame, rotation_deg), "bt601")
    for seen in (inner(canvas, letterbox), picture[..., ::-1]):
        assert seen.shape[:2] == scaler.upright_hw(frame)
        corners = {
            "upper left": seen[10, 10],
            "upper right": seen[10, -10],
            "lower left": seen[-10, 10],
            "lower right": seen[-10, -10],
        }
        assert [name for name, rgb in corners.items() if rgb[0] > 200] == [corner]


@pytest.mark.parametrize("rotation_deg", [0, 90, 180, 270])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "nv12"])
@pytest.mark.parametrize("size", [(640, 360), (1920, 1080), (66, 34), (2, 2)])
def test_a_decoders_pixels_come_through_bit_by_bit(
    size: tuple[int, int], pixel_format: str, rotation_deg: int
) -> None:
    planar = noisy_frame(*size)
    picture = full_size(planar.reformat(format=pixel_format), rotation_deg)
    turns = rotation_deg // 90
    np.testing.assert_array_equal(nv12.luma(picture), np.rot90(plane(planar, 0), turns))
    for index in (1, 2):
        np.testing.assert_array_equal(
            nv12.chroma(picture)[..., index - 1], np.rot90(plane(planar, index), turns)
        )


@pytest.mark.parametrize("rotation_deg", [0, 90, 180, 270])
@pytest.mark.parametrize("size", [(641, 360), (640, 359), (641, 359), (1, 1), (3, 300)])
def test_an_odd_size_grows_by_a_copy_at_the_right_and_below(
    size: tuple[int, int], rotation_deg: int
) -> None:
    frame = noisy_frame(*size)
    picture = full_size(frame, rotation_deg)
    upright = np.rot90(plane(frame, 0), rotation_deg // 90)
    height, width = upright.shape
    grown = np.pad(upright, ((0, height % 2), (0, width % 2)), mode="edge")
    np.testing.assert_array_equal(nv12.luma(picture), grown)
    for index in (1, 2):
        np.testing.assert_array_equal(
            nv12.chroma(picture)[..., index - 1], np.rot90(plane(frame, index), rotation_deg // 90)
        )


SMOOTH_FORMATS = [
    "yuv420p", "nv12", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuv420p10le", "yuv422p10le",
    "rgb24", "bgra", "gbrp", "gray", "gray16le",
]  # fmt: skip


@pytest.mark.parametrize(
    ("size", "matrix"),
    [((640, 360), None), ((1280, 720), None), ((640, 360), Colorspace.ITU709),
     ((1280, 720), Colorspace.ITU601), ((640, 360), 9)],
)  # fmt: skip
@pytest.mark.parametrize("pixel_format", SMOOTH_FORMATS)
def test_colours_are_those_that_pyav_gives(
    size: tuple[int, int], matrix: int | None, pixel_format: str
) -> None:
    """Of a picture without edges, so that where chroma is sampled makes no difference."""
    down, across = np.mgrid[: size[1], : size[0]]
    waves = [np.sin(down / 190 + phase) * np.cos(across / 230 - phase) for phase in range(3)]
    pixels = (128 + 80 * np.stack(waves, axis=-1)).astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pixel_format)
    if matrix is not None and not frame.format.is_rgb:
        frame.colorspace = matrix
    untold = frame.colorspace == 2 and not frame.format.is_rgb
    expected = frame.reformat(
        format="bgr24",
        src_colorspace=Colorspace.ITU709 if untold and size[0] == 1280 else None,
        interpolation=Interpolation.BILINEAR
        | Interpolation.ACCURATE_RND
        | Interpolation.FULL_CHR_H_INT,
    ).to_ndarray()
    shown = bgr_of(full_size(frame), matrix_to_keep(frame))
    difference = np.abs(shown - expected)
    # Both ways round to whole levels of luma and chroma: those of the source, and those of NV12.
    once = pixel_format in {"yuv420p", "nv12", "rgb24", "bgra", "gbrp", "gray"} and matrix != 9
    assert np.percentile(difference, 99.9) <= (2 if once else 3.5)
    assert difference.mean() < 1


@pytest.mark.parametrize(
    ("pixel_format", "width", "colorspace", "kept"),
    [
        ("yuv420p", 1920, 2, "bt709"),
        ("yuv420p", 640, 2, "bt601"),
        ("yuv420p", 640, 1, "bt709"),
        ("yuv420p", 1920, 5, "bt601"),
        ("yuv420p", 1920, 6, "bt601"),
        ("yuv420p10le", 1920, 9, "bt709"),
        ("yuv420p", 640, 7, "bt709"),  # SMPTE 240M
        ("yuvj420p", 1920, 5, "bt601"),
        ("rgb24", 1920, 2, "bt601"),
        ("gbrp", 1920, 0, "bt601"),
    ],
)
def test_the_matrix_is_the_sources_where_pictures_may_have_it(
    pixel_format: str, width: int, colorspace: int, kept: str
) -> None:
    frame = av.VideoFrame(width, width // 2, pixel_format)
    frame.colorspace = colorspace
    assert matrix_to_keep(frame) == kept


@pytest.mark.parametrize(("source", "wanted"), [(1, "bt601"), (6, "bt709"), (9, "bt601")])
def test_a_frame_of_another_matrix_is_converted_to_the_streams(
    source: int, wanted: nv12.Matrix
) -> None:
    pixels = np.broadcast_to(np.uint8([200, 60, 30]), (96, 160, 3))
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(
        format="yuv420p", dst_colorspace=source
    )
    frame.colorspace = source
    shown = bgr_of(full_size(frame, matrix=wanted), wanted)
    assert np.abs(shown - np.float64([30, 60, 200])).max() <= 4


@pytest.mark.parametrize("height", [480, 720, 1080])
def test_an_image_keeps_its_colours_at_any_size(height: int) -> None:
    pixels = np.broadcast_to(np.uint8([200, 60, 30]), (height, height * 16 // 9, 3))
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    canvas, letterbox = letterboxed(frame, (384, 640))
    assert np.abs(inner(canvas, letterbox) - np.float64([200, 60, 30])).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 300), (5000, 3), (17, 33)])
def test_a_picture_of_any_size_is_scaled(size: tuple[int, int]) -> None:
    frame = av.VideoFrame(*size, "yuv420p")
    for plane in frame.planes:
        plane.update(bytes([128]) * plane.buffer_size)
    canvas, letterbox = letterboxed(frame, (64, 96))
    assert np.abs(inner(canvas, letterbox).astype(int) - 130).max() <= 1
    assert set(full_size(frame).ravel().tolist()) == {128}


def test_a_frame_of_another_size_may_follow() -> None:
    scaler = FrameScaler(0)
    for size in ((640, 360), (320, 240), (640, 360)):
        frame = noisy_frame(*size)
        letterbox = Letterbox.fit((size[1], size[0]), (96, 160))
        canvas = np.empty((96, 160, 3), np.uint8)
        scaler.letterboxed(frame, letterbox, canvas)
        np.testing.assert_array_equal(canvas, letterboxed(frame, (96, 160))[0])
