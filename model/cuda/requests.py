# SPDX-License-Identifier: Apache-2.0
"""What an engine is asked for, checked in the thread that asks.

Axes: B looks at a picture, H and W height and width of the canvas.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float32, UInt8

from model.cuda.coded import Coded, CodedPicture, DeviceArray
from model.cuda.looks import LOOK, describe
from model.engines.contract import Done
from model.errors import EngineError
from model.slicing import Region

ALIGNMENT: Final = 256
"""Pictures in the arena of a batch begin at multiples of this."""


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """A picture to be looked at, and who is told."""

    pixels: np.ndarray | DeviceArray
    looks: np.ndarray
    """`LOOK` each; for pixels on the host, addresses count from the first of them."""
    predictions: Float32[np.ndarray, "B rows 6"]
    on_done: Done
    fixed: bool
    """Whether its batch must have the one size that those of files have."""

    @property
    def arena_bytes(self) -> int:
        """What the pixels take of an arena; nothing where they are on the device."""
        if isinstance(self.pixels, DeviceArray):
            return 0
        return -(-self.pixels.nbytes // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Takes pictures and canvases for an engine of one shape."""

    input_shape: tuple[int, int, int, int]
    output_shape: tuple[int, int, int]
    device: int
    arena_bytes: int

    def request(
        self,
        images: UInt8[np.ndarray, "B H W 3"] | CodedPicture,
        predictions: Float32[np.ndarray, "B rows 6"],
        on_done: Done,
    ) -> Request:
        """Return what a batch needs to know.

        Raises:
            EngineError: the engine cannot look at this picture.
            ValueError: a request cannot read from or write to this memory directly.
        """
        _check_array("predictions", predictions, self.output_shape, np.float32)
        if not predictions.flags.writeable:
            raise ValueError("predictions must be writeable")
        if isinstance(images, CodedPicture):
            self._check_picture(images)
            looks = self._looks_at(images)
            request = Request(images.pixels, looks, predictions, on_done, images.fixed)
        else:
            _check_array("images", images, self.input_shape, np.uint8)
            looks = self._looks_at_canvases()
            request = Request(images, looks, predictions, on_done, fixed=True)
        if request.arena_bytes > self.arena_bytes:
            raise EngineError(
                f"gpu.arena_mib: a picture of {request.arena_bytes / 2**20:.1f} MiB does not fit "
                f"into {self.arena_bytes >> 20}; raise it"
            )
        return request

    def _looks_at(self, picture: CodedPicture) -> np.ndarray:
        pixels, canvas_hw = picture.pixels, self.input_shape[1:3]
        address = pixels.address if isinstance(pixels, DeviceArray) else 0
        looks = [describe(picture.coded, address, each, canvas_hw, 0) for each in picture.regions]
        return np.array(looks, LOOK)

    def _looks_at_canvases(self) -> np.ndarray:
        """Each is a picture that fills its canvas."""
        num_canvases, height, width, _ = self.input_shape
        num_bytes = height * width * 3
        coded = Coded(
            pixel_format="rgb24",
            coded_hw=(height, width),
            offsets=(0,),
            pitches=(width * 3,),
            matrix="rgb",
            full_range=True,
            upright_hw=(height, width),
            num_bytes=num_bytes,
        )
        whole = Region.whole((height, width))
        places = range(0, num_canvases * num_bytes, num_bytes)
        looks = [describe(coded, place, whole, (height, width), 0) for place in places]
        return np.array(looks, LOOK)

    def _check_picture(self, picture: CodedPicture) -> None:
        pixels, num_bytes = picture.pixels, picture.coded.num_bytes
        if len(picture.regions) != self.input_shape[0]:
            raise ValueError(f"expected {self.input_shape[0]} regions, got {len(picture.regions)}")
        if not isinstance(pixels, DeviceArray):
            _check_array("pixels", pixels, (num_bytes,), np.uint8)
        elif (pixels.device, pixels.num_bytes) != (self.device, num_bytes):
            raise ValueError(
                f"pixels must be {num_bytes} bytes on device {self.device}, got "
                f"{pixels.num_bytes} on {pixels.device}"
            )


def _check_array(name: str, array: np.ndarray, shape: tuple[int, ...], dtype: type) -> None:
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(
            f"{name} must be {np.dtype(dtype)} of shape {shape}, got {array.dtype} of shape "
            f"{array.shape}"
        )
    if not array.flags.c_contiguous:
        raise ValueError(f"{name} must be C-contiguous, got strides {array.strides}")
