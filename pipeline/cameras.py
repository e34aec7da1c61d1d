# SPDX-License-Identifier: Apache-2.0
"""What is particular about one camera; places in its picture are shares of width and height."""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from model.config import Ratio, Settings

Place = tuple[Ratio, Ratio]
"""x and y as shares of the upright picture's width and height, from its top left."""
Polygon = Annotated[tuple[Place, ...], Field(min_length=3, max_length=64)]
Segment = tuple[Place, Place]
Priority = Literal["low", "normal", "high"]


def _of_some_size(region: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    left, top, right, bottom = region
    if not (left < right and top < bottom):
        raise PydanticCustomError(
            "region", "expected [left, top, right, bottom] with left < right and top < bottom"
        )
    return region


Region = Annotated[tuple[Ratio, Ratio, Ratio, Ratio], AfterValidator(_of_some_size)]


class CameraConfig(Settings):
    """How one camera is read and what is looked for in it."""

    decoder: Literal["pyav", "gstreamer"] = "pyav"
    """Who decodes its packets."""
    transport: Literal["tcp", "udp"] | None = None
    """How RTSP brings its packets; None for what `source.rtsp_transport` says."""
    rotate_deg: Literal[0, 90, 180, 270] = 0
    """Clockwise turn that brings its picture upright, beside what the stream itself declares."""
    max_fps: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Frames per second that are looked at; those between count as skipped."""
    priority: Priority = "normal"
    """Who is looked at first where there is more to do than can be done."""
    region: Region | None = None
    """Left, top, right and bottom of the part the detector is shown; None for the whole."""
    classes: tuple[str, ...] = ()
    """Names of the classes looked for in this camera; empty for what all look for."""
    min_score: Ratio | None = None
    """Which boxes count here; None for what counts everywhere."""
    scores: dict[str, Ratio] = Field(default_factory=dict)
    """The same for single classes."""
    ignore: tuple[Polygon, ...] = ()
    """Where nothing is to be found: boxes whose middle lies inside are left out."""
    privacy: tuple[Polygon, ...] = ()
    """What no one may see: blackened in every picture that is stored or shown. The detector sees
    it, and packets that are kept as they came, without being decoded, cannot have it."""


PLAIN: Final = CameraConfig()
"""Nothing particular."""
