# SPDX-License-Identifier: Apache-2.0
"""The latest packets of a live source, bounded in bytes, read by several readers.

The ring keeps one history. Each reader has a cursor and its own speed, nothing is copied, and no
reader holds anything up: what a cursor has not read when the ring needs the room is given up, up
to the newest keyframe. Whatever a cursor gives is whole runs: a keyframe and what follows it in
one connection, without a gap.

The ring and its cursors are used by one thread, that of the stage which reads the source.
"""

from collections import deque
from dataclasses import dataclass

from pipeline.decoding.media import MediaFacts, RawPacket


@dataclass(frozen=True, slots=True)
class Kept:
    """A packet and the connection it came by, which is told by its `facts` object."""

    raw: RawPacket
    facts: MediaFacts


class PacketRing:
    """The newest packets; the oldest go one by one when `max_bytes` are exceeded.

    The newest one is kept however large it is.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._kept: dict[int, Kept] = {}
        """By number; packets are counted from 0 as they are pushed."""
        self._keyframes: deque[int] = deque()
        """Numbers of the keyframes still kept."""
        self._end = 0

    @property
    def num_bytes(self) -> int:
        """Bytes of the packets that are kept."""
        return self._num_bytes

    def push(self, raw: RawPacket, facts: MediaFacts) -> None:
        """Add a packet, overwriting the oldest where there is no room."""
        self._kept[self._end] = Kept(raw, facts)
        if raw.keyframe:
            self._keyframes.append(self._end)
        self._end += 1
        self._num_bytes += len(raw.data)
        while self._num_bytes > self._max_bytes and len(self._kept) > 1:
            self._overwrite()

    def follow(self, *, since_ns: int | None = None, staleness_ns: int | None = None) -> "Cursor":
        """Begin to read at the newest keyframe, or at the next one where none is kept.

        Args:
            since_ns: Begin at the last keyframe captured at or before this time instead; where
                the ring does not go back so far, at the oldest.
            staleness_ns: Age from which a packet is given up; None to read whatever is kept.
        """
        start = self._end
        for number in reversed(self._keyframes):
            start = number
            if since_ns is None or self._kept[number].raw.captured_ns <= since_ns:
                break
        return Cursor(self, start, staleness_ns)

    def _overwrite(self) -> None:
        oldest = next(iter(self._kept))
        self._num_bytes -= len(self._kept.pop(oldest).raw.data)
        if self._keyframes and self._keyframes[0] == oldest:
            self._keyframes.popleft()


class Cursor:
    """One reader's place in the ring: `given + given_up + waiting` is all it could have had."""

    def __init__(self, ring: PacketRing, start: int, staleness_ns: int | None) -> None:
        self.given = 0
        self.given_up = 0
        self._ring = ring
        self._next = start
        self._staleness_ns = staleness_ns
        self._run: MediaFacts | None = None
        """The connection of the run that is being read; None where the next is a keyframe."""

    @property
    def waiting(self) -> int:
        """Packets that came and were neither given nor given up."""
        return self._ring._end - self._next  # noqa: SLF001 - ring and cursor are one thing

    def peek(self, now_ns: int) -> Kept | None:
        """The next packet worth reading at this time; gives up what is not."""
        while self.waiting:
            kept = self._ring._kept.get(self._next)  # noqa: SLF001
            if kept is None or self._stale(kept, now_ns):
                self._give_up_to(self._newest_keyframe())
            elif kept.raw.keyframe or kept.facts is self._run:
                return kept
            else:
                self._give_up_to(self._next + 1)
        return None

    def take(self) -> Kept:
        """The packet that was just peeked at; the next one follows."""
        kept = self._ring._kept[self._next]  # noqa: SLF001
        self._run = kept.facts
        self._next += 1
        self.given += 1
        return kept

    def _stale(self, kept: Kept, now_ns: int) -> bool:
        age_ns = now_ns - kept.raw.captured_ns
        return self._staleness_ns is not None and age_ns > self._staleness_ns

    def _newest_keyframe(self) -> int:
        """The newest keyframe that is still to come, or the end where there is none."""
        keyframes = self._ring._keyframes  # noqa: SLF001
        if keyframes and keyframes[-1] > self._next:
            return keyframes[-1]
        return self._ring._end  # noqa: SLF001

    def _give_up_to(self, number: int) -> None:
        self.given_up += number - self._next
        self._next = number
        self._run = None
