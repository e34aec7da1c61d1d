# SPDX-License-Identifier: Apache-2.0
"""Tracks as MOT text.

One line a box: frame (from 1), id, left, top, width, height (2 decimals), score (4 decimals),
class_id, -1, -1. Frames without boxes have no line; boxes without identity have id 0. Boxes that
were carried over, not detected in their frame, look like the others; JSON lines tell them apart.
"""

from pathlib import Path

from pipeline.sinks.text import TextWriter
from pipeline.tracking.tracks import Tracks


class MotWriter:
    """Writes one stream's tracks."""

    def __init__(self, path: Path) -> None:
        self._text = TextWriter(path)

    def write(self, frame_index: int, tracks: Tracks) -> None:
        """Add the lines of the frame at `frame_index`, which counts from 0."""
        lines = [
            f"{frame_index + 1},{track_id},{left:.2f},{top:.2f},{right - left:.2f},"
            f"{bottom - top:.2f},{score:.4f},{class_id},-1,-1\n"
            for track_id, (left, top, right, bottom), score, class_id in zip(
                tracks.track_id.tolist(),
                tracks.xyxy.tolist(),
                tracks.score.tolist(),
                tracks.class_id.tolist(),
                strict=True,
            )
        ]
        if lines:
            self._text.append("".join(lines).encode())

    def finish(self) -> None:
        """Complete the file."""
        self._text.finish()

    def abandon(self) -> None:
        """Leave the file as far as it goes, under its temporary name."""
        self._text.abandon()
