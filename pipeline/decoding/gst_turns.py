# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is to decode a camera by GStreamer: the GPU's, or the processor's.

A pipeline ends with its first failure, whoever's it is. One that an element of the GPU reports is
the GPU's. Where a pipeline on the GPU gives no picture at all, one on the processor is asked: if
that gives some it was the GPU, and else the camera. What was the GPU's is for the stream's
`HardwareWatch`, which also knows when the GPU is to be tried again; a pipeline on the processor is
broken off for that, which the camera sees as a connection made anew.
"""

from typing import Final

from pipeline.decoding.gst_elements import ELEMENTS, GpuElements, OnGpu, elements_here
from pipeline.decoding.hardware import Hardware, MadeBy
from pipeline.errors import DecoderLost, SourceError, SourceForbidden
from pipeline.messages import DecoderKind

KIND: Final[DecoderKind] = "gstreamer-nv"


class Turns:
    """Follows the pipelines of one camera; without a GPU it is always the processor's turn."""

    def __init__(self, hardware: Hardware | None) -> None:
        self._hardware = hardware
        self._at: OnGpu | None = None
        """How the pipeline at work decodes; None for the processor."""
        self._elements: GpuElements | None = None
        """What the GPU is used by, until it fails: to look for it costs a process."""
        self._has_opened = False
        self._suspected = ""
        """Why the GPU gave no picture, until the processor has shown whether the camera does."""

    def next(self) -> OnGpu | None:
        """How the next pipeline is to decode; None for the processor."""
        self._has_opened = False
        self._at = None if self._suspected else self._gpu()
        return self._at

    @property
    def is_gpu_due(self) -> bool:
        """Whether the pipeline at work is to give way to one on the GPU."""
        return self._has_opened and self._at is None and self._gpu() is not None

    def on_opened(self) -> None:
        """Hear that the pipeline gives pictures."""
        self._has_opened = True
        if self._hardware is None:
            return
        if self._at is not None:
            self._hardware.watch.on_opened()
            self._hardware.watch.on_picture(KIND)
        elif self._suspected:
            self._give_up(self._hardware, f"no picture from the GPU: {self._suspected}")
            self._suspected = ""

    def on_error(self, error: SourceError) -> None:
        """Hear why the pipeline ended, or never gave a picture."""
        if self._at is None:
            self._suspected = ""
        elif isinstance(error, DecoderLost):
            assert self._hardware is not None
            self._give_up(self._hardware, str(error))
        elif not self._has_opened and not isinstance(error, SourceForbidden):
            self._suspected = str(error)

    def news(self) -> MadeBy | None:
        """Who decodes, the first time after that has changed."""
        return None if self._hardware is None else self._hardware.watch.news()

    def _gpu(self) -> OnGpu | None:
        if self._hardware is None or not self._hardware.watch.wants_gpu:
            return None
        self._elements = self._elements or elements_here()
        if self._elements is None:
            names = ", ".join(name for elements in ELEMENTS for name in elements.decoders)
            self._give_up(self._hardware, f"GStreamer has none of {names} here")
            return None
        return OnGpu(self._elements, self._hardware.device)

    def _give_up(self, hardware: Hardware, reason: str) -> None:
        hardware.watch.on_refused(reason)
        self._elements = None
