# SPDX-License-Identifier: Apache-2.0
"""From the decoder's own pixels straight to what the network and the viewer want.

The network's picture is scaled from YUV in one step by swscale, whose bilinear filter widens when
it shrinks: the antialiased triangle filter that training and evaluation use. It goes through planes
of green, blue and red: from 1080p to 640 that costs 1.2 ms and a mean error of 0.3 levels, where
packed RGB costs 2.9 ms for the same error, or 1.9 ms for one of 2 levels.

Tiles are cut from the decoder's planes without a copy and scaled in the same way.

The viewer's picture is NV12 (`pipeline/nv12.py`), which is what most decoders make but for the
order of the chroma: nothing is computed then. OpenCV writes 1080p into the slot in 0.3 ms, two
thirds of them for the luma alone; swscale and a copy take 1.0 ms, NumPy 0.6 ms.
"""

from collections.abc import Sequence

import av
import cv2
import numpy as np
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from jaxtyping import UInt8

from model.letterbox import PAD, Letterbox
from model.slicing import Region
from pipeline.decoding.cropping import Cropper
from pipeline.decoding.surface import AnyFrame
from pipeline.nv12 import Matrix, chroma, luma

_TRIANGLE = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_BT709, _UNSPECIFIED = 1, 2  # as frames count; `Colorspace` counts as swscale does
_BT601 = (5, 6)  # of 625 and 525 lines: one matrix
_COLORSPACES = {"bt601": Colorspace.ITU601, "bt709": Colorspace.ITU709}
_TURNS = (None, cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)
_HD_WIDTH, _SD_HEIGHT = 1280, 576
_Kind = tuple[int, int, str, tuple[Region, ...]]


class FrameScaler:
    """Scales and turns the frames of one stream; keeps FFmpeg's scaler contexts warm."""

    def __init__(self, rotation_deg: int, pixel_aspect: float = 1.0) -> None:
        """Set up for frames to be turned counter-clockwise and given square pixels.

        Args:
            rotation_deg: By how much; quarter turns only.
            pixel_aspect: Width of a coded pixel over its height.
        """
        self.quarter_turns = round(rotation_deg / 90) % 4
        """Counter-clockwise, that bring frames upright."""
        self._pixel_aspect = pixel_aspect
        self._to_network = VideoReformatter()
        self._to_viewer = VideoReformatter()
        self._to_square = VideoReformatter()
        self._to_tiles = VideoReformatter()
        self._cropper: Cropper | None = None
        self._cropped: _Kind | None = None

    def upright_hw(self, frame: AnyFrame) -> tuple[int, int]:
        """Height and width of the frame as a viewer sees it."""
        width = self._square_width(frame)
        return (width, frame.height) if self.quarter_turns % 2 else (frame.height, width)

    def looks(
        self,
        frame: av.VideoFrame,
        regions: Sequence[Region],
        canvases: UInt8[np.ndarray, "B H W 3"],
    ) -> None:
        """Write regions of the upright frame into their canvases.

        The first is the whole of what is shown, the others its tiles.
        """
        canvas_hw = canvases.shape[1], canvases.shape[2]
        uncut = int(regions[0] == Region.whole(self.upright_hw(frame)))
        if uncut:
            self.letterboxed(frame, regions[0].letterbox(canvas_hw), canvases[0])
        if len(regions) == uncut:
            return
        parts = self._cut(frame, tuple(regions[uncut:]))
        for place, (part, region) in enumerate(zip(parts, regions[uncut:], strict=True), uncut):
            scaler = self._to_tiles if place else self._to_network
            letterbox = region.letterbox(canvas_hw)
            self._write(scaler, part, _matrix(frame), letterbox, canvases[place])

    def letterboxed(
        self, frame: av.VideoFrame, letterbox: Letterbox, canvas: UInt8[np.ndarray, "H W 3"]
    ) -> None:
        """Write the frame into the canvas as RGB, scaled, centred and padded."""
        self._write(self._to_network, frame, _matrix(frame), letterbox, canvas)

    def _write(
        self,
        scaler: VideoReformatter,
        frame: av.VideoFrame,
        matrix: Colorspace | None,
        letterbox: Letterbox,
        canvas: UInt8[np.ndarray, "H W 3"],
    ) -> None:
        height, width = letterbox.resized_hw
        turned = self.quarter_turns % 2
        scaled = scaler.reformat(
            frame,
            width=height if turned else width,
            height=width if turned else height,
            format="gbrp",
            src_colorspace=matrix,
            interpolation=_TRIANGLE,
            threads=1,
        )
        top, left = letterbox.pad_top_px, letterbox.pad_left_px
        canvas[:top] = canvas[top + height :] = PAD
        canvas[:, :left] = canvas[:, left + width :] = PAD
        inner = canvas[top : top + height, left : left + width]
        green, blue, red = (rows_of(plane)[:, : plane.width] for plane in scaled.planes)
        for channel, pixels in enumerate((red, green, blue)):
            inner[..., channel] = np.rot90(pixels, self.quarter_turns)

    def _cut(self, frame: av.VideoFrame, regions: tuple[Region, ...]) -> list[av.VideoFrame]:
        """The regions as coded; a frame of oblong pixels is made square as a whole first."""
        if self.is_oblong(frame):
            frame = self.squared(frame)
        kind = (frame.width, frame.height, frame.format.name, regions)
        if self._cropper is None or kind != self._cropped:
            frame_hw = (frame.height, frame.width)
            coded = [region.as_coded(frame_hw, self.quarter_turns) for region in regions]
            self._cropper, self._cropped = Cropper(frame, coded), kind
        return self._cropper.cut(frame)

    def is_oblong(self, frame: AnyFrame) -> bool:
        """Whether the frame's pixels are not as wide as they are high."""
        return self._square_width(frame) != frame.width

    def squared(self, frame: av.VideoFrame) -> av.VideoFrame:
        """The frame as coded, in RGB, with square pixels."""
        return self._to_square.reformat(
            frame,
            width=self._square_width(frame),
            format="gbrp",
            src_colorspace=_matrix(frame),
            interpolation=_TRIANGLE,
            threads=1,
        )

    def full_size(
        self, frame: av.VideoFrame, picture: UInt8[np.ndarray, "rows W"], matrix: Matrix
    ) -> None:
        """Write the frame into the picture, as NV12 of this matrix; the sizes must agree.

        An odd size has grown by a copy of its last row or column.
        """
        height, width = self.upright_hw(frame)
        square = self._square_width(frame)
        if square != frame.width or not _needs_no_conversion(frame, matrix):
            frame = self._to_viewer.reformat(
                frame,
                width=square,
                format="nv12",
                src_colorspace=_matrix(frame),
                dst_colorspace=_COLORSPACES[matrix],
                dst_color_range=ColorRange.MPEG,
                interpolation=_TRIANGLE,
                threads=1,
            )
        brightness = luma(picture)
        self._turn(rows_of(frame.planes[0])[:, : frame.width], brightness[:height, :width])
        brightness[height:] = brightness[height - 1]
        brightness[:, width:] = brightness[:, width - 1 : width]
        self._turn_chroma(frame.planes[1:], chroma(picture))

    def _turn(self, pixels: UInt8[np.ndarray, "..."], upright: UInt8[np.ndarray, "..."]) -> None:
        """Write the pixels upright; OpenCV turns them six times as fast as a strided copy."""
        turn = _TURNS[self.quarter_turns]
        if turn is None:
            np.copyto(upright, pixels)
        else:
            cv2.rotate(pixels, turn, upright)

    def _turn_chroma(
        self, planes: Sequence[VideoPlane], upright: UInt8[np.ndarray, "H/2 W/2 2"]
    ) -> None:
        """Write one plane of pairs, or two of single values, upright as pairs."""
        rows = [rows_of(plane) for plane in planes]
        if len(planes) == 1:
            pairs = rows[0][:, : planes[0].width * 2].reshape(planes[0].height, -1, 2)
            self._turn(pairs, upright)
            return
        values = [each[:, : plane.width] for each, plane in zip(rows, planes, strict=True)]
        if self.quarter_turns == 0:
            cv2.merge(values, upright)
        else:
            self._turn(cv2.merge(values), upright)

    def _square_width(self, frame: AnyFrame) -> int:
        """Pixels across where each is as wide as it is high."""
        return max(1, round(frame.width * self._pixel_aspect))


def matrix_to_keep(frame: av.VideoFrame) -> Matrix:
    """The matrix that changes the frame's pixels least, of the two a picture may have."""
    return "bt601" if frame.format.is_rgb else own_matrix(frame) or "bt709"


def _needs_no_conversion(frame: av.VideoFrame, matrix: Matrix) -> bool:
    return (
        frame.format.name in {"yuv420p", "nv12"}
        and frame.color_range != ColorRange.JPEG
        and own_matrix(frame) == matrix
    )


def own_matrix(frame: AnyFrame) -> Matrix | None:
    """The matrix of a frame in YUV; None for one that pictures do not have, as BT.2020's."""
    if frame.colorspace == _BT709 or _matrix(frame) == Colorspace.ITU709:
        return "bt709"
    return "bt601" if frame.colorspace in (*_BT601, _UNSPECIFIED) else None


def rows_of(plane: VideoPlane) -> UInt8[np.ndarray, "H bytes"]:
    """The rows of a plane without a copy, with their padding."""
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height]


def _matrix(frame: AnyFrame) -> Colorspace | None:
    """The YUV matrix; files of HD size that do not name theirs were made with BT.709."""
    hd = frame.width >= _HD_WIDTH or frame.height > _SD_HEIGHT
    if frame.colorspace == _UNSPECIFIED and hd:
        return Colorspace.ITU709
    return None
