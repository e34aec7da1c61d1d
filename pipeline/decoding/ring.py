# SPDX-License-Identifier: Apache-2.0
"""The packets of a live source that wait for its decoder: bounded in bytes and in age."""

from collections import deque

from pipeline.decoding.media import RawPacket


class PacketRing:
    """A queue that gives up its oldest packets up to a keyframe, never from the middle."""

    def __init__(self, *, max_bytes: int, staleness_ns: int) -> None:
        self._packets: deque[RawPacket] = deque()
        self._num_bytes = 0
        self._max_bytes = max_bytes
        self._staleness_ns = staleness_ns
        self._await_keyframe = True

    def push(self, packet: RawPacket) -> int:
        """Add a packet; returns how many were given up, this one perhaps among them."""
        if self._await_keyframe and not packet.keyframe:
            return 1
        self._await_keyframe = False
        self._packets.append(packet)
        self._num_bytes += len(packet.data)
        given_up = 0
        while self._packets and self._overfull(packet.captured_ns):
            given_up += self._discard_to_keyframe()
        return given_up

    def peek(self) -> RawPacket | None:
        """The oldest packet."""
        return self._packets[0] if self._packets else None

    def pop(self) -> RawPacket:
        """Take the oldest packet."""
        packet = self._packets.popleft()
        self._num_bytes -= len(packet.data)
        return packet

    def clear(self) -> int:
        """Give up everything, as after a lost connection; the next packet is a keyframe."""
        count = len(self._packets)
        self._packets.clear()
        self._num_bytes = 0
        self._await_keyframe = True
        return count

    def _overfull(self, now_ns: int) -> bool:
        age_ns = now_ns - self._packets[0].captured_ns
        return age_ns > self._staleness_ns or self._num_bytes > self._max_bytes

    def _discard_to_keyframe(self) -> int:
        """Give up what lies before the newest keyframe, or everything where there is none."""
        keyframes = [n for n, packet in enumerate(self._packets) if packet.keyframe and n > 0]
        if not keyframes:
            return self.clear()
        for _ in range(keyframes[-1]):
            self.pop()
        return keyframes[-1]
