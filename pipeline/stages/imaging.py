# SPDX-License-Identifier: Apache-2.0
"""For preprocess: what the detector is given of a frame, as its engine takes it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Protocol

import numpy as np

from model.cuda.coded import Coded
from model.engines.contract import Takes
from model.slicing import Region
from pipeline.decoding.planes import copy_planes, plane_layout
from pipeline.decoding.scaling import FrameScaler
from pipeline.decoding.surface import AnyFrame, Surface, on_host


@dataclass(frozen=True, slots=True)
class Image:
    """What a slot is to hold of a frame."""

    shape: tuple[int, ...]
    """Of the slot, uint8."""
    write: Callable[[np.ndarray], None]
    """Fills one in the host's memory."""
    coded: Coded | None = None
    """How the decoder's pixels will lie in it; None for canvases."""
    surface: Surface | None = None
    """What fills one on the GPU that decoded the frame; None if it is not there any more."""


class Imager(Protocol):
    """Makes the images of one stream's frames."""

    def image(
        self,
        scaler: FrameScaler,
        frame: AnyFrame,
        regions: Sequence[Region],
        canvas_hw: tuple[int, int],
    ) -> Image:
        """The image of a frame.

        Args:
            scaler: Knows how the frame hangs.
            frame: As its decoder made it.
            regions: What is looked at in the upright frame, the whole of what is shown first.
            canvas_hw: Height and width of the canvas of every look.
        """
        ...


class CanvasImager:
    """Scales and turns each look onto a canvas of its own."""

    def image(
        self,
        scaler: FrameScaler,
        frame: AnyFrame,
        regions: Sequence[Region],
        canvas_hw: tuple[int, int],
    ) -> Image:
        """The canvases of all looks: B H W 3."""
        write = partial(scaler.looks, on_host(frame), regions)
        return Image((len(regions), *canvas_hw, 3), write)


class CodedImager:
    """Copies the decoder's own pixels, once for all looks; the engine does the rest.

    What the engine cannot read FFmpeg turns into RGB first, in full size: formats that are rare,
    and parts of frames with oblong pixels.
    """

    def image(
        self,
        scaler: FrameScaler,
        frame: AnyFrame,
        regions: Sequence[Region],
        canvas_hw: tuple[int, int],  # noqa: ARG002 - the engine scales
    ) -> Image:
        """The planes of the frame, side by side."""
        upright_hw = scaler.upright_hw(frame)
        layout = plane_layout(frame)
        in_parts = tuple(regions) != (Region.whole(upright_hw),)
        if layout is None or (in_parts and scaler.is_oblong(frame)):
            frame = scaler.squared(on_host(frame))
            layout = plane_layout(frame)
            assert layout is not None, frame.format.name
        turns = scaler.quarter_turns
        coded = replace(layout, upright_hw=upright_hw, quarter_turns=turns)
        surface = frame if isinstance(frame, Surface) else None
        return Image((coded.num_bytes,), partial(copy_planes, frame, coded), coded, surface)


IMAGERS: Final[dict[Takes, Imager]] = {"canvases": CanvasImager(), "coded": CodedImager()}
"""By what the engine takes."""
