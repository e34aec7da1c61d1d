# SPDX-License-Identifier: Apache-2.0
"""One stream's tracker: detections in, identities over time out.

A thin layer over the `trackers` library. What it promises beside the association itself:

- The result depends on the inputs alone; time is the argument `at_ns`, never a clock.
- Identities count from 1 on each tracker, in order of first appearance, and are never used twice.
- Boxes leave in the order they came in.
- A first frame, and a first frame after a reset, gives its boxes at once, so that one picture is
  enough. Later objects are given from the frame on that confirms them (`association.py`).
- The library associates by geometry alone: a track keeps its identity when its class flickers, and
  carries the class and score of this frame's box.
"""

from typing import Final, Literal, Protocol, runtime_checkable

import numpy as np
import supervision as sv
from jaxtyping import Int, UInt8

from model.boxes import area, clip
from model.detections import Detections
from pipeline.tracking.association import Association, AssociationName, make_association
from pipeline.tracking.thresholds import Thresholds
from pipeline.tracking.tracks import Tracks

TrackerName = Literal[AssociationName, "none"]

_TICK_NS: Final = 1_000
"""Time given to the library where none has passed; it takes no two updates at one time."""


@runtime_checkable
class Tracker(Protocol):
    """Follows the objects of one stream."""

    def update(
        self,
        detections: Detections,
        at_ns: int,
        picture: UInt8[np.ndarray, "H W 3"] | None = None,
    ) -> Tracks:
        """Give the boxes of the frame at `at_ns` their identities.

        Args:
            detections: Everything the detector kept, boxes below the score threshold included.
            at_ns: The frame's pts. A step back, or one longer than the lost-track time, resets.
            picture: The frame, read only where camera motion is compensated.
        """
        ...

    def predict(self, at_ns: int, source_hw: tuple[int, int]) -> Tracks:
        """Say where the tracks of the last update are in a frame that nobody looked at.

        The next update gives what it would have given without this call.

        Args:
            at_ns: The frame's pts. A step back, or one longer than the lost-track time, resets.
            source_hw: The frame's size, to which boxes are clipped; who has left it is left out.
        """
        ...

    def reset(self) -> None:
        """Forget all tracks; identities go on counting."""
        ...


def make_tracker(
    kind: TrackerName,
    *,
    min_score: float | Thresholds,
    frame_rate: float,
    lost_s: float = 1.0,
    camera_motion: bool = False,
    num_identities: int = 0,
) -> Tracker:
    """Return a new tracker for one stream.

    Args:
        kind: The method; "none" passes boxes through with track id 0, and predicts that they stay.
        min_score: The user's score threshold, or one for each class, from which every threshold
            of the method derives: a track starts from this score, and methods with a second
            association (bytetrack, botsort) also continue tracks by boxes below it.
        frame_rate: Updates a second, after whatever is skipped.
        lost_s: Time for which a track without boxes keeps its identity, at least two frames.
        camera_motion: Whether botsort compensates the motion of the camera (five times the cost).
        num_identities: Identities that were given before, by a tracker whose place this one takes.
    """
    thresholds = min_score if isinstance(min_score, Thresholds) else Thresholds(min_score)
    if not 0 <= thresholds.common <= 1:
        raise ValueError(f"min_score must be in [0, 1], got {thresholds.common}")
    if not 0 < frame_rate < float("inf"):
        raise ValueError(f"frame_rate must be positive and finite, got {frame_rate}")
    if lost_s < 0:
        raise ValueError(f"lost_s must not be negative, got {lost_s}")
    lost_s = max(lost_s, 2 / frame_rate)
    if kind == "none":
        return _Untracked(thresholds, round(lost_s * 1e9))
    return _Tracked(
        make_association(
            kind,
            min_score=thresholds.common,
            frame_rate=frame_rate,
            lost_s=lost_s,
            camera_motion=camera_motion,
        ),
        thresholds,
        num_identities,
    )


class _Untracked:
    """Every box that counts, with track id 0: no identity is claimed."""

    def __init__(self, thresholds: Thresholds, lost_ns: int) -> None:
        self._thresholds = thresholds
        self._timeline = _Timeline(lost_ns)
        self._given = Tracks.empty()

    def update(
        self,
        detections: Detections,
        at_ns: int,
        picture: UInt8[np.ndarray, "H W 3"] | None = None,  # noqa: ARG002 - the protocol's
    ) -> Tracks:
        kept = np.flatnonzero(detections.score >= self._thresholds.of(detections.class_id))
        self._timeline.on_update(at_ns)
        self._given = _select(detections, kept, np.zeros(len(kept), np.int64))
        return self._given

    def predict(
        self,
        at_ns: int,
        source_hw: tuple[int, int],  # noqa: ARG002 - the protocol's
    ) -> Tracks:
        if self._timeline.breaks_at(at_ns):
            self.reset()
        self._timeline.on_frame(at_ns)
        return self._given

    def reset(self) -> None:
        self._timeline = _Timeline(self._timeline.lost_ns)
        self._given = Tracks.empty()


class _Tracked:
    """The library's association behind our promises."""

    def __init__(
        self, association: Association, thresholds: Thresholds, num_identities: int
    ) -> None:
        self._association = association
        self._thresholds = thresholds
        self._num_identities = num_identities
        self._own_id: dict[int, int] = {}
        """Our identity of each of the library's living tracks."""
        self._given = Tracks.empty()
        """What the last update gave."""
        self._timeline = _Timeline(association.lost_ns)
        self._elapsed_ns = 0

    def update(
        self,
        detections: Detections,
        at_ns: int,
        picture: UInt8[np.ndarray, "H W 3"] | None = None,
    ) -> Tracks:
        if self._timeline.breaks_at(at_ns):
            self.reset()
        found = self._found(detections)
        frame = picture if self._association.uses_picture else None
        last_ns = self._timeline.updated_ns
        if last_ns is None:
            # The library names a track when it is confirmed: show it the first frame that often.
            for _ in range(self._association.sights - 1):
                self._associate(found, frame)
                self._elapsed_ns += _TICK_NS
        else:
            self._elapsed_ns += max(at_ns - last_ns, _TICK_NS)
        self._timeline.on_update(at_ns)
        self._given = self._own(detections, self._associate(found, frame))
        return self._given

    def predict(self, at_ns: int, source_hw: tuple[int, int]) -> Tracks:
        if self._timeline.breaks_at(at_ns):
            self.reset()
        self._timeline.on_frame(at_ns)
        given, last_ns = self._given, self._timeline.updated_ns
        if last_ns is None or len(given) == 0:
            return Tracks.empty()
        library_id = {own: library_id for library_id, own in self._own_id.items()}
        track_ids = [library_id[own] for own in given.track_id.tolist()]
        # Not from where the filter believes the box to be, which lags behind it: over 5 frames of
        # people walking that costs 2 % of the boxes.
        moves = self._association.motion(track_ids, (at_ns - last_ns) / 1e9)
        xyxy = clip(given.xyxy + moves, source_hw)
        inside = area(xyxy) > 0
        return Tracks(
            xyxy=xyxy[inside],
            score=given.score[inside],
            class_id=given.class_id[inside],
            track_id=given.track_id[inside],
        )

    def reset(self) -> None:
        self._association.library.reset()
        self._own_id = {}
        self._given = Tracks.empty()
        self._timeline = _Timeline(self._association.lost_ns)
        self._elapsed_ns = 0

    def _found(self, detections: Detections) -> sv.Detections:
        """The boxes this method may see, each with its place in the input."""
        lowest = 0.0 if self._association.takes_weak else self._association.min_score
        score = self._thresholds.levelled(detections.score, detections.class_id)
        kept = np.flatnonzero(score >= lowest)
        return sv.Detections(
            xyxy=detections.xyxy[kept],
            confidence=score[kept],
            class_id=detections.class_id[kept],
            data={"place": kept},
        )

    def _associate(
        self, found: sv.Detections, frame: UInt8[np.ndarray, "H W 3"] | None
    ) -> sv.Detections:
        return self._association.library.update(found, frame, self._elapsed_ns / 1e9)

    def _own(self, detections: Detections, named: sv.Detections) -> Tracks:
        """Keep boxes of known tracks, in input order, under our own identities."""
        if len(named) == 0:
            return Tracks.empty()
        order = np.argsort(named.data["place"])
        places, library_ids = named.data["place"][order], named.tracker_id[order]
        # The library would confirm a track by weak boxes too; the first one shown must be good.
        enough = detections.score >= self._thresholds.of(detections.class_id)
        good = enough[places] & (library_ids >= 0)
        for library_id in library_ids[good].tolist():
            if library_id not in self._own_id:
                self._num_identities += 1
                self._own_id[library_id] = self._num_identities
        track_ids = np.array([self._own_id.get(i, 0) for i in library_ids.tolist()], np.int64)
        living = {track.tracker_id for track in self._association.library.tracks}
        self._own_id = {key: own for key, own in self._own_id.items() if key in living}
        return _select(detections, places[track_ids > 0], track_ids[track_ids > 0])


class _Timeline:
    """When what is known of a stream does not hold any more."""

    def __init__(self, lost_ns: int) -> None:
        self.lost_ns = lost_ns
        self.updated_ns: int | None = None
        """The last update's time; None before the first."""
        self._shown_ns = 0

    def breaks_at(self, at_ns: int) -> bool:
        """Whether time has gone back, or on for too long without an update."""
        if self.updated_ns is None:
            return False
        return not self._shown_ns <= at_ns <= self.updated_ns + self.lost_ns

    def on_update(self, at_ns: int) -> None:
        """Note a frame with detections."""
        self.updated_ns = self._shown_ns = at_ns

    def on_frame(self, at_ns: int) -> None:
        """Note a frame without."""
        self._shown_ns = at_ns


def _select(
    detections: Detections, places: Int[np.ndarray, " N"], track_id: Int[np.ndarray, " N"]
) -> Tracks:
    return Tracks(
        xyxy=detections.xyxy[places],
        score=detections.score[places],
        class_id=detections.class_id[places],
        track_id=track_id,
    )
