# SPDX-License-Identifier: Apache-2.0
"""Tracks as JSON lines: one object a frame, also for frames without objects.

`{frame, pts_s, objects: [{id, class_id, class, score, xyxy}], predicted}`: frame counts from 1 as
in MOT text; pts_s has 6 decimals, score 4, xyxy 2, without trailing zeros.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from pipeline.sinks.text import TextWriter
from pipeline.tracking.tracks import Tracks


class _Object(msgspec.Struct, frozen=True, kw_only=True):
    """One box."""

    id: int
    class_id: int
    class_name: str = msgspec.field(name="class")
    score: float
    xyxy: list[float]


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    """One frame."""

    frame: int
    pts_s: float
    objects: list[_Object]
    predicted: bool


class JsonlWriter:
    """Writes one stream's tracks."""

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        self._text = TextWriter(path)
        self._classes = tuple(classes)
        self._encoder = msgspec.json.Encoder()

    def write(
        self, frame_index: int, pts_ns: int, tracks: Tracks, *, predicted: bool = False
    ) -> None:
        """Add the frame at `frame_index`, which counts from 0.

        Args:
            frame_index: Place of the frame in its stream.
            pts_ns: Its presentation time.
            tracks: Its boxes.
            predicted: Whether the boxes were carried over, not detected in this frame.
        """
        line = _Line(
            frame=frame_index + 1,
            pts_s=round(pts_ns / 1e9, 6),
            objects=self._objects(tracks),
            predicted=predicted,
        )
        self._text.append(self._encoder.encode(line) + b"\n")

    def finish(self) -> None:
        """Complete the file."""
        self._text.finish()

    def abandon(self) -> None:
        """Leave the file as far as it goes, under its temporary name."""
        self._text.abandon()

    def _objects(self, tracks: Tracks) -> list[_Object]:
        return [
            _Object(
                id=track_id,
                class_id=class_id,
                class_name=self._class_name(class_id),
                score=round(score, 4),
                xyxy=[round(side, 2) for side in xyxy],
            )
            for track_id, class_id, score, xyxy in zip(
                tracks.track_id.tolist(),
                tracks.class_id.tolist(),
                tracks.score.tolist(),
                tracks.xyxy.tolist(),
                strict=True,
            )
        ]

    def _class_name(self, class_id: int) -> str:
        known = 0 <= class_id < len(self._classes)
        return self._classes[class_id] if known else f"class {class_id}"
