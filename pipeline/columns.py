# SPDX-License-Identifier: Apache-2.0
"""Detections and tracks as the buffers that ride beside a header, and back, without a copy."""

import numpy as np

from model.detections import Detections
from pipeline.messages import Buffers
from pipeline.tracking.tracks import Tracks


def detections_to_buffers(detections: Detections) -> Buffers:
    """One buffer a column: float32 xyxy, float32 score, int64 class_id."""
    return (
        np.ascontiguousarray(detections.xyxy, np.float32).data,
        np.ascontiguousarray(detections.score, np.float32).data,
        np.ascontiguousarray(detections.class_id, np.int64).data,
    )


def detections_from_buffers(buffers: Buffers) -> Detections:
    """The detections sent as these buffers; read-only."""
    xyxy, score, class_id = buffers
    return Detections(
        xyxy=np.frombuffer(xyxy, np.float32).reshape(-1, 4),
        score=np.frombuffer(score, np.float32),
        class_id=np.frombuffer(class_id, np.int64),
    )


def tracks_to_buffers(tracks: Tracks) -> Buffers:
    """One buffer a column: float32 xyxy, float32 score, int64 class_id, int64 track_id."""
    return (
        np.ascontiguousarray(tracks.xyxy, np.float32).data,
        np.ascontiguousarray(tracks.score, np.float32).data,
        np.ascontiguousarray(tracks.class_id, np.int64).data,
        np.ascontiguousarray(tracks.track_id, np.int64).data,
    )


def tracks_from_buffers(buffers: Buffers) -> Tracks:
    """The tracks sent as these buffers; read-only."""
    xyxy, score, class_id, track_id = buffers
    return Tracks(
        xyxy=np.frombuffer(xyxy, np.float32).reshape(-1, 4),
        score=np.frombuffer(score, np.float32),
        class_id=np.frombuffer(class_id, np.int64),
        track_id=np.frombuffer(track_id, np.int64),
    )
