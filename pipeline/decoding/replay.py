# SPDX-License-Identifier: Apache-2.0
"""A file that plays like a camera: at its own pace, for ever. `replay:clip.mp4` names one.

It is there to try settings for cameras without one, and to measure how many a machine carries.
"""

import time
import zlib
from collections.abc import Iterator
from dataclasses import replace

from pipeline.decoding.inputs import Source
from pipeline.decoding.media import MediaReader, RawPacket
from pipeline.errors import SourceUnreadable

_DEFAULT_RATE = 25.0
_SPREAD_NS = 2_000_000_000  # as far apart as keyframes of cameras usually are


class ReplayReader:
    """Gives each packet of a file when its time has come, and begins again after the last.

    Times go on over the seam. Files that are opened together are not in step, as cameras and their
    keyframes are not: each begins at a moment of the first two seconds that its name decides.
    """

    def __init__(self, source: Source) -> None:
        """Open the file.

        Raises:
            SourceUnreadable: it cannot be opened.
        """
        self._file = replace(source, kind="file")
        self._reader = MediaReader(self._file)
        self._step_ns = round(1e9 / (self._reader.facts.frame_rate or _DEFAULT_RATE))
        self._phase_ns = zlib.crc32(source.name.encode()) % _SPREAD_NS
        # It never ends, so it declares nothing that could be missing.
        self.facts = replace(self._reader.facts, num_frames=0, duration_s=0.0)

    def packets(self) -> Iterator[RawPacket]:
        """The packets, each at its time.

        Raises:
            SourceUnreadable: the file is damaged, or empty.
        """
        began_ns, offset_ns = time.monotonic_ns() + self._phase_ns, 0
        while True:
            first_ns, at_ns = None, 0
            for number, raw in enumerate(self._reader.packets()):
                at_ns = number * self._step_ns if raw.dts_ns is None else raw.dts_ns
                first_ns = at_ns if first_ns is None else first_ns
                _sleep_until(began_ns + offset_ns + at_ns - first_ns)
                yield replace(
                    raw,
                    pts_ns=None if raw.pts_ns is None else raw.pts_ns + offset_ns,
                    dts_ns=None if raw.dts_ns is None else raw.dts_ns + offset_ns,
                    captured_ns=time.monotonic_ns(),
                )
            if first_ns is None:
                raise SourceUnreadable(f"{self._file.label}: holds no picture to replay")
            offset_ns += at_ns - first_ns + self._step_ns
            self._reader.close()
            self._reader = MediaReader(self._file)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()


def _sleep_until(at_ns: int) -> None:
    time.sleep(max(0, at_ns - time.monotonic_ns()) / 1e9)
