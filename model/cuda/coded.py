# SPDX-License-Identifier: Apache-2.0
"""How a decoder's pixels lie in memory, for those who hand them on and those who read them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol

import numpy as np

from model.slicing import Region

if TYPE_CHECKING:
    from model.cuda.device import Event

PixelFormat = Literal[
    "nv12",
    "p010le",
    "yuv420p",
    "yuv422p",
    "yuv444p",
    "yuv420p10le",
    "rgb24",
    "bgr24",
    "gbrp",
]
ColourMatrix = Literal["bt601", "bt709", "bt2020", "rgb"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Coded:
    """How a decoder's pixels lie in a slot."""

    pixel_format: PixelFormat
    coded_hw: tuple[int, int]
    offsets: tuple[int, ...]
    """First byte of each plane, multiples of 64."""
    pitches: tuple[int, ...]
    """Bytes from a row to the next; even where samples have 16 bits."""
    matrix: ColourMatrix
    full_range: bool
    quarter_turns: int = 0
    """Counter-clockwise, that bring the picture upright."""
    upright_hw: tuple[int, int]
    """With square pixels, as a viewer sees it."""
    num_bytes: int
    """Of the whole slot."""


@dataclass(frozen=True, slots=True)
class Component:
    """Where one of three colour components lies in a pixel format."""

    plane: int
    first: int
    """Byte of the first sample in a row."""
    step: int
    """Bytes from a sample to its right neighbour."""
    shift_x: int
    """Binary logarithm of the subsampling, across and down."""
    shift_y: int

    def counts(self, hw: tuple[int, int]) -> tuple[int, int]:
        """Samples across and down of a picture that begins on a whole sample."""
        height, width = hw
        return -(-width >> self.shift_x), -(-height >> self.shift_y)


@dataclass(frozen=True, slots=True)
class Layout:
    """What every picture of a pixel format has in common."""

    components: tuple[Component, Component, Component]
    bits: int
    shift: int
    """Bits that a sample is shifted left by; P010 has 6."""

    @property
    def wide(self) -> bool:
        """Whether a sample has two bytes."""
        return self.bits > 8

    @property
    def largest(self) -> int:
        """The largest sample, before it is shifted."""
        return 2**self.bits - 1


# fmt: off
FORMATS: Final[dict[PixelFormat, Layout]] = {
    #                             plane first step shift_x shift_y
    "nv12":        Layout((Component(0, 0, 1, 0, 0), Component(1, 0, 2, 1, 1), Component(1, 1, 2, 1, 1)), 8, 0),  # noqa: E501
    "p010le":      Layout((Component(0, 0, 2, 0, 0), Component(1, 0, 4, 1, 1), Component(1, 2, 4, 1, 1)), 10, 6),  # noqa: E501
    "yuv420p":     Layout((Component(0, 0, 1, 0, 0), Component(1, 0, 1, 1, 1), Component(2, 0, 1, 1, 1)), 8, 0),  # noqa: E501
    "yuv422p":     Layout((Component(0, 0, 1, 0, 0), Component(1, 0, 1, 1, 0), Component(2, 0, 1, 1, 0)), 8, 0),  # noqa: E501
    "yuv444p":     Layout((Component(0, 0, 1, 0, 0), Component(1, 0, 1, 0, 0), Component(2, 0, 1, 0, 0)), 8, 0),  # noqa: E501
    "yuv420p10le": Layout((Component(0, 0, 2, 0, 0), Component(1, 0, 2, 1, 1), Component(2, 0, 2, 1, 1)), 10, 0),  # noqa: E501
    "rgb24":       Layout((Component(0, 0, 3, 0, 0), Component(0, 1, 3, 0, 0), Component(0, 2, 3, 0, 0)), 8, 0),  # noqa: E501
    "bgr24":       Layout((Component(0, 2, 3, 0, 0), Component(0, 1, 3, 0, 0), Component(0, 0, 3, 0, 0)), 8, 0),  # noqa: E501
    "gbrp":        Layout((Component(2, 0, 1, 0, 0), Component(0, 0, 1, 0, 0), Component(1, 0, 1, 0, 0)), 8, 0),  # noqa: E501
}
# fmt: on


def plane_sizes(kind: PixelFormat, coded_hw: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Rows of each plane, and bytes of a row."""
    components = FORMATS[kind].components
    for number in range(1 + max(component.plane for component in components)):
        one = next(component for component in components if component.plane == number)
        height, width = -(-coded_hw[0] >> one.shift_y), -(-coded_hw[1] >> one.shift_x)
        yield height, width * one.step


class Lender(Protocol):
    """Owns bytes on a device, and lends them to those who read them there."""

    def read_until(self, event: "Event") -> None:
        """Leave them as they are until an event has happened; from any thread."""
        ...


@dataclass(frozen=True, slots=True)
class DeviceArray:
    """Bytes on a device, where another part of this process put them."""

    address: int
    num_bytes: int
    device: int
    ready: "Event | None"
    """Recorded after the last write."""
    lender: Lender | None = None
    """Is told by each reader until when it reads; None where the bytes outlive all requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodedPicture:
    """A picture to be looked at, where it lies."""

    pixels: np.ndarray | DeviceArray
    """uint8 of `coded.num_bytes`, unchanged until the request ends."""
    coded: Coded
    regions: tuple[Region, ...]
    """Of the upright picture."""
    fixed: bool
    """Whether it is of a file, whose batches are all of one size so that results repeat."""
