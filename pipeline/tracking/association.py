# SPDX-License-Identifier: Apache-2.0
"""The association methods of the `trackers` library, with thresholds from one score.

The library's own thresholds suit boxes of 0.6 and more: a box of 0.4 would never start a track.
Here a track starts from `min_score`, and three sights in a row confirm it, two on slow streams. On
30 fps of a street at night a third sight takes ByteTrack from 48 identities, 35 of them gone within
5 frames, to 28 and 17. OC-SORT waits for two: it hides a track as long again after every miss.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from jaxtyping import Float32
from trackers import BoTSORTTracker, ByteTrackTracker, OCSORTTracker, SORTTracker

AssociationName = Literal["bytetrack", "sort", "ocsort", "botsort"]

_BRISK_RATE: Final = 10.0
"""Frame rate from which a third sight is soon enough to be waited for."""
_BUFFER_RATE: Final = 30.0
"""The library counts its lost-track buffer in frames of this rate, whatever the stream's."""
_LIBRARY_HIGH_SCORE: Final = 0.6
"""High score that the library's BoT-SORT similarities were tuned for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Association:
    """One tracker of the library, and how it is to be fed."""

    library: Any
    """Tracker with `update`, `reset` and `tracks`."""
    min_score: float
    """Boxes from here on are good: they start and confirm tracks."""
    takes_weak: bool
    """Whether boxes below `min_score` may continue its tracks."""
    sights: int
    """Frames in a row that confirm a track."""
    lost_ns: int
    """Time for which it keeps a track that has no boxes."""
    frame_rate: float
    """Updates a second; the library's motion models count time in steps of it."""
    uses_picture: bool = False

    def motion(self, track_ids: Sequence[int], ahead_s: float) -> Float32[np.ndarray, "N 4"]:
        """How far each side of these tracks moves from the last update on; nothing is changed."""
        models = {track.tracker_id: track.state_estimator for track in self.library.tracks}
        moves = [
            _ahead(models[track_id], ahead_s * self.frame_rate) - models[track_id].state_to_bbox()
            for track_id in track_ids
        ]
        return np.array(moves, np.float32).reshape(-1, 4)


def make_association(
    kind: AssociationName,
    *,
    min_score: float,
    frame_rate: float,
    lost_s: float,
    camera_motion: bool,
) -> Association:
    """Return a new association of this kind; arguments as in `make_tracker`."""
    if camera_motion and kind != "botsort":
        raise ValueError(f'camera_motion needs tracker "botsort", got "{kind}"')
    # Scores are float32, and the library compares some of them as float64.
    threshold = float(np.float32(min_score))
    sights = 3 if frame_rate >= _BRISK_RATE and kind != "ocsort" else 2
    buffer = max(1, round(lost_s * _BUFFER_RATE))
    common: dict[str, Any] = {
        "lost_track_buffer": buffer,
        "frame_rate": frame_rate,
        "minimum_consecutive_frames": sights,
    }
    library: Any
    match kind:
        case "bytetrack":
            library = ByteTrackTracker(
                **common,
                track_activation_threshold=threshold,
                high_conf_det_threshold=threshold,
                minimum_iou_threshold=0.2,  # the paper's; 0.1 hands lost tracks to passing boxes
            )
        case "sort":
            library = SORTTracker(**common, track_activation_threshold=threshold)
        case "ocsort":
            common["minimum_consecutive_frames"] = sights - 1  # it does not count the first
            library = OCSORTTracker(**common, high_conf_det_threshold=threshold)
        case "botsort":
            library = _botsort(common, threshold, camera_motion=camera_motion)
    return Association(
        library=library,
        min_score=threshold,
        sights=sights,
        takes_weak=kind in ("bytetrack", "botsort"),
        lost_ns=round(buffer / _BUFFER_RATE * 1e9),
        frame_rate=frame_rate,
        uses_picture=camera_motion,
    )


def _ahead(estimator: Any, steps: float) -> np.ndarray:
    """The box of one of the library's motion models so many steps on."""
    ahead = copy(estimator)
    ahead.kf, ahead.motion = copy(estimator.kf), copy(estimator.motion)
    ahead.kf.state = estimator.kf.state.copy()  # all else is replaced, this is written into
    ahead.predict(steps)
    return ahead.state_to_bbox()


def _botsort(common: dict[str, Any], threshold: float, *, camera_motion: bool) -> Any:
    # Its similarity is IoU times score, so a box of 0.29 could never reach the 0.3 that confirms
    # it: ask a box of `min_score` for the overlap the library asks of one of 0.6.
    scale = max(threshold, 0.1) / _LIBRARY_HIGH_SCORE
    return BoTSORTTracker(
        **common,
        track_activation_threshold=threshold,
        high_conf_det_threshold=threshold,
        minimum_iou_threshold_first_assoc=0.2 * scale,
        minimum_iou_threshold_unconfirmed_assoc=0.3 * scale,
        enable_cmc=camera_motion,
    )
