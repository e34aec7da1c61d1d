import numpy as np
import pytest

from model.detections import Detections
from pipeline.columns import (
    detections_from_buffers,
    detections_to_buffers,
    tracks_from_buffers,
    tracks_to_buffers,
)
from pipeline.messages import Buffers
from pipeline.tracking.tracks import Tracks


def sent(buffers: Buffers) -> Buffers:
    """The buffers as they arrive: other memory, read-only."""
    return tuple(memoryview(bytes(buffer)) for buffer in buffers)


def make_tracks(count: int) -> Tracks:
    rng = np.random.default_rng(count)
    return Tracks(
        xyxy=rng.random((count, 4), np.float32),
        score=rng.random(count, np.float32),
        class_id=rng.integers(0, 80, count),
        track_id=rng.integers(1, 2**40, count),
    )


@pytest.mark.parametrize("count", [0, 1, 300])
def test_tracks_arrive_as_they_were_sent(count: int) -> None:
    tracks = make_tracks(count)
    arrived = tracks_from_buffers(sent(tracks_to_buffers(tracks)))
    for column in ("xyxy", "score", "class_id", "track_id"):
        expected, actual = getattr(tracks, column), getattr(arrived, column)
        np.testing.assert_array_equal(actual, expected)
        assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
        assert not actual.flags.writeable


@pytest.mark.parametrize("count", [0, 1, 300])
def test_detections_arrive_as_they_were_sent(count: int) -> None:
    tracks = make_tracks(count)
    detections = Detections(xyxy=tracks.xyxy, score=tracks.score, class_id=tracks.class_id)
    arrived = detections_from_buffers(sent(detections_to_buffers(detections)))
    for column in ("xyxy", "score", "class_id"):
        np.testing.assert_array_equal(getattr(arrived, column), getattr(detections, column))
        assert not getattr(arrived, column).flags.writeable


def test_columns_of_other_types_and_layouts_are_sent_as_the_agreed_ones() -> None:
    tracks = make_tracks(20)
    odd = Tracks(
        xyxy=np.asfortranarray(tracks.xyxy.astype(np.float64))[::2],
        score=tracks.score.astype(np.float64)[::2],
        class_id=tracks.class_id.astype(np.int32)[::2],
        track_id=tracks.track_id[::2],
    )
    arrived = tracks_from_buffers(sent(tracks_to_buffers(odd)))
    np.testing.assert_array_equal(arrived.xyxy, tracks.xyxy[::2])
    np.testing.assert_array_equal(arrived.class_id, tracks.class_id[::2])
    assert (arrived.xyxy.dtype, arrived.class_id.dtype) == (np.float32, np.int64)


def test_columns_of_different_lengths_are_refused() -> None:
    buffers = list(sent(tracks_to_buffers(make_tracks(3))))
    buffers[1] = buffers[1][:8]
    with pytest.raises(ValueError, match="score must have shape"):
        tracks_from_buffers(buffers)
