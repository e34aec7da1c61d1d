# SPDX-License-Identifier: Apache-2.0
"""Parts of a decoded picture without a copy: FFmpeg's crop moves pointers into its planes."""

from collections.abc import Sequence
from fractions import Fraction

import av
from av.filter import Graph
from av.filter.context import FilterContext

from model.slicing import Region

_TIME_BASE = Fraction(1, 1000)  # the filter must have one; no time is read from its pictures


class Cropper:
    """Cuts the same regions out of frames of one size and format."""

    def __init__(self, frame: av.VideoFrame, regions: Sequence[Region]) -> None:
        """Set up for frames like this one; regions in its own pixels, aligned to its chroma."""
        self._graph = Graph()
        self._graph.threads = 1  # it touches no pixel, so its threads would only lie idle
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=_TIME_BASE
        )
        split = self._graph.add("split", str(len(regions)))
        source.link_to(split)
        self._sinks = [self._add(split, place, region) for place, region in enumerate(regions)]
        self._graph.configure()

    def cut(self, frame: av.VideoFrame) -> list[av.VideoFrame]:
        """The regions of a frame, which share its memory."""
        self._graph.vpush(frame)
        parts = [sink.pull() for sink in self._sinks]
        assert all(isinstance(part, av.VideoFrame) for part in parts)
        return parts  # type: ignore[return-value] # a video graph gives video

    def _add(self, split: FilterContext, place: int, region: Region) -> FilterContext:
        left, top, width, height = region
        crop = self._graph.add("crop", f"x={left}:y={top}:w={width}:h={height}:exact=1")
        sink = self._graph.add("buffersink")
        split.link_to(crop, place)
        crop.link_to(sink)
        return sink
