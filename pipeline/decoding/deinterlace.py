# SPDX-License-Identifier: Apache-2.0
"""Interlaced pictures made whole, at the frame rate of the source.

The two fields of an interlaced picture are two moments: whatever moves has combs for edges, which
no detector was trained on. FFmpeg's bwdif keeps the lines of one field and fills in the others from
the pictures before and after, so each picture comes out when the next one is there. Progressive
pictures of the same stream pass unchanged.
"""

import logging
from fractions import Fraction

import av
from av.filter import Graph

logger = logging.getLogger(__name__)

_FILTER = "mode=send_frame:parity=auto:deint=interlaced"
_TIME_BASE = Fraction(1, 1000)  # the filter must have one; no time is read from its pictures
_Kind = tuple[int, int, str]


class Deinterlacer:
    """Pictures of one stream in, as many out in the same order, one picture later."""

    def __init__(self) -> None:
        self._graph: Graph | None = None
        self._kind: _Kind | None = None

    def push(self, frame: av.VideoFrame) -> list[av.VideoFrame]:
        """The pictures that this one completes; it may be of another size than the ones before."""
        kind = (frame.width, frame.height, frame.format.name)
        before = []
        if kind != self._kind:
            before = self.flush()
            self._graph, self._kind = _graph(frame), kind
        if self._graph is None:
            return [*before, frame]
        self._graph.vpush(frame)
        return [*before, *self._ready()]

    def flush(self) -> list[av.VideoFrame]:
        """The picture still held back; what is pushed next begins anew."""
        if self._graph is None:
            return []
        self._graph.vpush(None)
        held = self._ready()
        self._graph = self._kind = None
        return held

    def _ready(self) -> list[av.VideoFrame]:
        assert self._graph is not None
        frames = []
        try:
            while True:
                frames.append(self._graph.vpull())
        except (av.error.BlockingIOError, av.error.EOFError):
            return frames


def _graph(frame: av.VideoFrame) -> Graph | None:
    """The filter for pictures like this one; None for those too small for it."""
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=_TIME_BASE
    )
    filling, sink = graph.add("bwdif", _FILTER), graph.add("buffersink")
    source.link_to(filling)
    filling.link_to(sink)
    try:
        graph.configure()
    except (av.error.FFmpegError, ValueError) as failure:
        logger.info("pictures of %s stay interlaced: %s", frame, failure)
        return None
    return graph
