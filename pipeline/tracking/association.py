# SPDX-License-Identifier: Apache-2.0
"""The association methods of the `trackers` library, with thresholds from one score.

The library's own thresholds suit boxes of 0.6 and more: a box of 0.4 would never start a track.
Here a track starts from `min_score`, and two sights in a row confirm it.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from trackers import BoTSORTTracker, ByteTrackTracker, OCSORTTracker, SORTTracker

AssociationName = Literal["bytetrack", "sort", "ocsort", "botsort"]

_CONFIRM_FRAMES: Final = 2
"""Sights in a row that confirm a track: the fewest the library knows how to wait for."""
_BUFFER_RATE: Final = 30.0
"""The library counts its lost-track buffer in frames of this rate, whatever the stream's."""
_LIBRARY_HIGH_SCORE: Final = 0.6
"""High score that the library's BoT-SORT similarities were tuned for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Association:
    """One tracker of the library, and how it is to be fed."""

    library: Any
    """Tracker with `update`, `reset` and `tracks`."""
    min_input_score: float
    """Boxes below this are kept from it."""
    lost_ns: int
    """Time for which it keeps a track that has no boxes."""
    uses_picture: bool = False


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
    buffer = max(1, round(lost_s * _BUFFER_RATE))
    common = {
        "lost_track_buffer": buffer,
        "frame_rate": frame_rate,
        "minimum_consecutive_frames": _CONFIRM_FRAMES,
    }
    library: Any
    match kind:
        case "bytetrack":
            library = ByteTrackTracker(
                **common, track_activation_threshold=threshold, high_conf_det_threshold=threshold
            )
        case "sort":
            library = SORTTracker(**common, track_activation_threshold=threshold)
        case "ocsort":
            library = OCSORTTracker(**common, high_conf_det_threshold=threshold)
        case "botsort":
            library = _botsort(common, threshold, camera_motion=camera_motion)
    return Association(
        library=library,
        min_input_score=0.0 if kind in ("bytetrack", "botsort") else threshold,
        lost_ns=round(buffer / _BUFFER_RATE * 1e9),
        uses_picture=camera_motion,
    )


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
