# SPDX-License-Identifier: Apache-2.0
"""What every tracker promises, whatever its method."""

from collections.abc import Iterator
from typing import get_args

import numpy as np
import pytest

from model.detections import Detections
from pipeline.tracking.association import AssociationName
from pipeline.tracking.tracker import Tracker, TrackerName, make_tracker
from pipeline.tracking.tracks import Tracks

METHODS = get_args(AssociationName)
SIGHTS: dict[TrackerName, int] = {"bytetrack": 3, "sort": 3, "ocsort": 2, "botsort": 3}
STEP_NS = 40_000_000


def make(kind: TrackerName, **settings: float) -> Tracker:
    return make_tracker(kind, **{"min_score": 0.25, "frame_rate": 25.0, **settings})


def boxes(*lefts: float, score: float | list[float] = 0.9, class_id: int = 0) -> Detections:
    """Boxes of 40 x 80 px that stand apart when their left sides do."""
    left = np.array(lefts, np.float32)
    top = np.full_like(left, 100)
    return Detections(
        xyxy=np.stack((left, top, left + 40, top + 80), axis=1),
        score=np.broadcast_to(np.array(score, np.float32), left.shape).copy(),
        class_id=np.full(len(left), class_id, np.int64),
    )


def crowd(num_frames: int, *, seed: int = 0) -> Iterator[Detections]:
    """Walkers with jittering boxes, flickering scores and a new order in each frame."""
    random = np.random.default_rng(seed)
    at = random.uniform(0, 1500, (20, 2))
    speed = random.normal(0, 3, (20, 2))
    for _ in range(num_frames):
        at = at + speed
        xyxy = np.hstack((at, at + 60)) + random.normal(0, 1, (20, 4))
        seen = random.permutation(20)[: random.integers(15, 21)]
        yield Detections(
            xyxy=xyxy[seen].astype(np.float32),
            score=random.uniform(0.1, 0.95, len(seen)).astype(np.float32),
            class_id=random.integers(0, 3, len(seen)),
        )


def follow(tracker: Tracker, frames: Iterator[Detections]) -> list[Tracks]:
    return [tracker.update(found, index * STEP_NS) for index, found in enumerate(frames)]


def as_bytes(tracks: list[Tracks]) -> bytes:
    return b"".join(
        column.tobytes()
        for frame in tracks
        for column in (frame.xyxy, frame.score, frame.class_id, frame.track_id)
    )


@pytest.mark.parametrize("kind", METHODS)
def test_the_first_frame_gives_its_boxes(kind: TrackerName) -> None:
    tracks = make(kind).update(boxes(0, 200, 400), 0)
    assert tracks.track_id.tolist() == [1, 2, 3]


@pytest.mark.parametrize("kind", METHODS)
def test_a_moving_object_keeps_its_identity(kind: TrackerName) -> None:
    frames = (boxes(5.0 * index, 800 - 5.0 * index) for index in range(40))
    assert all(tracks.track_id.tolist() == [1, 2] for tracks in follow(make(kind), frames))


@pytest.mark.parametrize("kind", METHODS)
def test_a_box_at_the_score_threshold_starts_a_track(kind: TrackerName) -> None:
    tracker = make(kind, min_score=0.4)
    tracker.update(Detections.empty(), 0)
    for index in range(1, 8):
        tracks = tracker.update(boxes(10, score=0.4), index * STEP_NS)
    assert tracks.track_id.tolist() == [1]


@pytest.mark.parametrize("min_score", [0.0, 0.05, 0.25, 0.7, 1.0])
@pytest.mark.parametrize("kind", METHODS)
def test_any_threshold_lets_better_boxes_through(kind: TrackerName, min_score: float) -> None:
    tracker = make(kind, min_score=min_score)
    tracker.update(Detections.empty(), 0)
    for index in range(1, 8):
        tracks = tracker.update(boxes(10, score=max(min_score, 0.11)), index * STEP_NS)
    assert tracks.track_id.tolist() == [1]


@pytest.mark.parametrize("kind", METHODS)
def test_a_box_below_the_score_threshold_starts_no_track(kind: TrackerName) -> None:
    tracks = follow(make(kind), (boxes(10, score=0.24) for _ in range(10)))
    assert sum(map(len, tracks)) == 0


@pytest.mark.parametrize("kind", ["bytetrack", "botsort"])
def test_a_weak_box_continues_a_track(kind: TrackerName) -> None:
    scores = [0.9, 0.9, 0.9, 0.15, 0.12, 0.15, 0.9]
    tracks = follow(make(kind), (boxes(10, score=score) for score in scores))
    assert [frame.track_id.tolist() for frame in tracks] == [[1]] * 7
    assert tracks[4].score.tolist() == pytest.approx([0.12])


@pytest.mark.parametrize("kind", ["sort", "ocsort"])
def test_methods_without_a_second_association_see_no_weak_box(kind: TrackerName) -> None:
    tracks = follow(make(kind), (boxes(10, score=score) for score in [0.9, 0.9, 0.15, 0.9]))
    assert len(tracks[2]) == 0


@pytest.mark.parametrize(("kind", "sights"), SIGHTS.items())
def test_flicker_is_no_track(kind: TrackerName, sights: int) -> None:
    frames = [*[boxes(10)] * 5, *[boxes(10, 500)] * (sights - 1), *[boxes(10)] * 5]
    tracks = follow(make(kind), iter(frames))
    assert all(frame.track_id.tolist() == [1] for frame in tracks)


@pytest.mark.parametrize(("kind", "sights"), SIGHTS.items())
def test_a_later_object_appears_once_confirmed(kind: TrackerName, sights: int) -> None:
    frames = [*[boxes(10)] * 5, *[boxes(10, 500)] * (sights + 1)]
    tracks = follow(make(kind), iter(frames))
    assert [len(frame) for frame in tracks] == [1] * (4 + sights) + [2, 2]
    assert tracks[-1].track_id.tolist() == [1, 2]


@pytest.mark.parametrize("kind", METHODS)
def test_a_slow_stream_waits_for_two_sights(kind: TrackerName) -> None:
    tracker = make(kind, frame_rate=5.0)
    frames = [*[boxes(10)] * 5, *[boxes(10, 500)] * 2]
    tracks = [tracker.update(found, index * 200_000_000) for index, found in enumerate(frames)]
    assert [len(frame) for frame in tracks] == [1] * 6 + [2]


@pytest.mark.parametrize("kind", ["bytetrack", "botsort"])
def test_weak_boxes_alone_confirm_no_track(kind: TrackerName) -> None:
    frames = [*[boxes(10)] * 3, boxes(10, 500, score=[0.9, 0.3])]
    frames += [boxes(10, 500, score=[0.9, 0.15])] * 10
    tracks = follow(make(kind), iter(frames))
    assert all(frame.track_id.tolist() == [1] for frame in tracks)


@pytest.mark.parametrize("kind", METHODS)
def test_output_keeps_the_order_of_the_input(kind: TrackerName) -> None:
    tracker = make(kind)
    tracker.update(boxes(0, 200, 400, 600), 0)
    tracks = tracker.update(boxes(600, 0, 400, 200, score=[0.3, 0.9, 0.2, 0.8]), STEP_NS)
    lefts = tracks.xyxy[:, 0].tolist()
    assert lefts == [left for left in (600, 0, 400, 200) if left in lefts]
    assert tracks.track_id.tolist() == [{0: 1, 200: 2, 400: 3, 600: 4}[left] for left in lefts]


@pytest.mark.parametrize("kind", METHODS)
def test_identities_count_from_one_without_gaps(kind: TrackerName) -> None:
    seen: list[int] = []
    for tracks in follow(make(kind), crowd(60)):
        seen.extend(track_id for track_id in tracks.track_id.tolist() if track_id not in seen)
    assert seen == list(range(1, len(seen) + 1))


@pytest.mark.parametrize("kind", METHODS)
def test_two_trackers_do_not_know_of_each_other(kind: TrackerName) -> None:
    alone = as_bytes(follow(make(kind), crowd(40)))
    first, second = make(kind), make(kind)
    beside = []
    for index, (found, other) in enumerate(zip(crowd(40), crowd(40, seed=1), strict=True)):
        beside.append(first.update(found, index * STEP_NS))
        second.update(other, index * STEP_NS)
    assert as_bytes(beside) == alone


@pytest.mark.parametrize("kind", METHODS)
def test_the_same_inputs_give_the_same_bytes(kind: TrackerName) -> None:
    assert as_bytes(follow(make(kind), crowd(40))) == as_bytes(follow(make(kind), crowd(40)))


@pytest.mark.parametrize("kind", METHODS)
def test_only_differences_of_time_count(kind: TrackerName) -> None:
    tracker = make(kind)
    later = [
        tracker.update(found, 95_443_000_000_000 + index * STEP_NS)
        for index, found in enumerate(crowd(40))
    ]
    assert as_bytes(later) == as_bytes(follow(make(kind), crowd(40)))


@pytest.mark.parametrize("kind", METHODS)
def test_a_jump_back_resets_and_uses_new_identities(kind: TrackerName) -> None:
    tracker = make(kind)
    assert tracker.update(boxes(10, 200), 10 * STEP_NS).track_id.tolist() == [1, 2]
    assert tracker.update(boxes(10, 200), 9 * STEP_NS).track_id.tolist() == [3, 4]
    assert tracker.update(boxes(10, 200), 10 * STEP_NS).track_id.tolist() == [3, 4]


@pytest.mark.parametrize("kind", METHODS)
def test_a_gap_longer_than_the_lost_time_resets(kind: TrackerName) -> None:
    tracker = make(kind, lost_s=1.0)
    tracker.update(boxes(10), 0)
    assert tracker.update(boxes(10), 1_000_000_000).track_id.tolist() == [1]
    assert tracker.update(boxes(10), 2_001_000_000).track_id.tolist() == [2]


@pytest.mark.parametrize("kind", ["bytetrack", "sort", "botsort"])
def test_an_object_is_found_again_within_the_lost_time_only(kind: TrackerName) -> None:
    for gap_frames, expected in ((20, [1]), (30, [])):
        frames = [*[boxes(10)] * 5, *[Detections.empty()] * gap_frames, boxes(10)]
        assert follow(make(kind, lost_s=1.0), iter(frames))[-1].track_id.tolist() == expected


@pytest.mark.parametrize("kind", METHODS)
def test_a_slow_stream_still_has_tracks(kind: TrackerName) -> None:
    tracker = make(kind, frame_rate=0.5, lost_s=1.0)
    ids = [tracker.update(boxes(10), index * 2_000_000_000).track_id.tolist() for index in range(5)]
    assert ids == [[1]] * 5


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", METHODS)
def test_equal_times_are_taken_without_a_warning(kind: TrackerName) -> None:
    tracker = make(kind)
    picture = np.zeros((240, 320, 3), np.uint8)
    for _ in range(3):
        assert tracker.update(boxes(10), 7, picture).track_id.tolist() == [1]


@pytest.mark.parametrize("kind", METHODS)
def test_a_track_keeps_its_identity_when_its_class_flickers(kind: TrackerName) -> None:
    tracks = follow(make(kind), (boxes(10, class_id=index % 2) for index in range(6)))
    assert [frame.track_id.tolist() for frame in tracks] == [[1]] * 6
    assert [frame.class_id.tolist() for frame in tracks] == [[0], [1]] * 3


@pytest.mark.parametrize("kind", METHODS)
def test_reset_forgets_tracks_but_not_the_count(kind: TrackerName) -> None:
    tracker = make(kind)
    tracker.update(boxes(10), 0)
    tracker.reset()
    assert tracker.update(boxes(10), STEP_NS).track_id.tolist() == [2]


@pytest.mark.parametrize("kind", METHODS)
def test_frames_without_boxes_give_no_tracks(kind: TrackerName) -> None:
    assert all(len(t) == 0 for t in follow(make(kind), iter([Detections.empty()] * 3)))


@pytest.mark.parametrize("kind", METHODS)
def test_memory_does_not_grow_with_the_identities(kind: TrackerName) -> None:
    tracker = make(kind, lost_s=0.2)
    for index in range(300):
        tracks = tracker.update(boxes(10.0 + 400 * (index // 4 % 3)), index * STEP_NS)
    assert tracks.track_id.max() > 30
    assert len(tracker._own_id) < 10


SIZE_HW = (1080, 1920)


@pytest.mark.parametrize("kind", METHODS)
def test_a_prediction_goes_on_as_the_object_moved(kind: TrackerName) -> None:
    tracker = make(kind, frame_rate=5.0)
    for index in range(0, 60, 5):
        tracks = tracker.update(boxes(100 + 4.0 * index, 1500 - 4.0 * index), index * STEP_NS)
    for index in range(56, 60):
        predicted = tracker.predict(index * STEP_NS, SIZE_HW)
        assert predicted.track_id.tolist() == tracks.track_id.tolist() == [1, 2]
        lefts = [100 + 4.0 * index, 1500 - 4.0 * index]
        assert predicted.xyxy[:, 0].tolist() == pytest.approx(lefts, abs=2)
        assert predicted.xyxy[:, 1].tolist() == pytest.approx([100, 100], abs=1)


@pytest.mark.parametrize("kind", METHODS)
def test_a_prediction_changes_nothing_for_the_updates_after_it(kind: TrackerName) -> None:
    alone = as_bytes(follow(make(kind, frame_rate=12.5), crowd(60)))
    tracker, beside = make(kind, frame_rate=12.5), []
    for index, found in enumerate(crowd(60)):
        beside.append(tracker.update(found, index * STEP_NS))
        for part in (0, 10_000_000, 30_000_000):
            tracker.predict(index * STEP_NS + part, SIZE_HW)
    assert as_bytes(beside) == alone


@pytest.mark.parametrize("kind", METHODS)
def test_only_what_the_last_update_gave_is_predicted(kind: TrackerName) -> None:
    tracker = make(kind)
    for index in range(4):
        tracker.update(boxes(10, 500), index * STEP_NS)
    last = tracker.update(boxes(500, 900, class_id=1), 4 * STEP_NS)  # one lost, one not confirmed
    predicted = tracker.predict(5 * STEP_NS, SIZE_HW)
    assert last.track_id.tolist() == predicted.track_id.tolist() == [2]
    assert predicted.class_id.tolist() == [1]
    assert predicted.score.tolist() == last.score.tolist()


@pytest.mark.parametrize("kind", METHODS)
def test_predictions_are_clipped_and_end_outside_the_picture(kind: TrackerName) -> None:
    tracker = make(kind)
    for index in range(20):
        tracker.update(boxes(200.0 - 10 * index), index * STEP_NS)
    (box,) = tracker.predict(21 * STEP_NS, SIZE_HW).xyxy.tolist()
    assert box[0] == 0
    assert 15 < box[2] < 40
    assert len(tracker.predict(30 * STEP_NS, SIZE_HW)) == 0


@pytest.mark.parametrize("kind", [*METHODS, "none"])
def test_nothing_is_predicted_after_a_break_in_time(kind: TrackerName) -> None:
    for broken_ns in (9 * STEP_NS, 10 * STEP_NS + 1_000_000_001):
        tracker = make(kind, lost_s=1.0)
        tracker.update(boxes(10), 10 * STEP_NS)
        assert len(tracker.predict(10 * STEP_NS + 1_000_000_000, SIZE_HW)) == 1
        tracker.update(boxes(10), 10 * STEP_NS + 1_000_000_000)
        tracker.reset()
        tracker.update(boxes(10), 10 * STEP_NS)
        assert len(tracker.predict(broken_ns, SIZE_HW)) == 0
        assert len(tracker.predict(11 * STEP_NS, SIZE_HW)) == 0


@pytest.mark.parametrize("kind", [*METHODS, "none"])
def test_without_an_update_nothing_is_predicted(kind: TrackerName) -> None:
    tracker = make(kind)
    assert len(tracker.predict(0, SIZE_HW)) == 0
    tracker.update(boxes(10), STEP_NS)
    assert len(tracker.predict(STEP_NS, SIZE_HW)) == 1
    tracker.reset()
    assert len(tracker.predict(2 * STEP_NS, SIZE_HW)) == 0


def test_without_a_tracker_boxes_are_predicted_to_stay() -> None:
    tracker = make("none")
    for lefts in ((0, 200), (10, 210)):
        given = tracker.update(boxes(*lefts), 0)
    assert as_bytes([tracker.predict(STEP_NS, SIZE_HW)]) == as_bytes([given])


def test_camera_motion_moves_tracks_with_the_picture() -> None:
    random = np.random.default_rng(0)
    scene = np.kron(random.integers(0, 255, (60, 160, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    tracker = make_tracker("botsort", min_score=0.25, frame_rate=25.0, camera_motion=True)
    shifts = [0, 0, 30, 60, 90]
    for index, shift in enumerate(shifts):
        picture = np.ascontiguousarray(scene[:, 200 - shift : 900 - shift])
        tracks = tracker.update(boxes(300.0 + shift), index * STEP_NS, picture)
        assert tracks.track_id.tolist() == [1]


def test_without_a_tracker_every_good_box_has_identity_zero() -> None:
    tracker = make("none")
    tracks = tracker.update(boxes(0, 200, 400, score=[0.9, 0.24, 0.25]), 0)
    assert tracks.track_id.tolist() == [0, 0]
    assert tracks.xyxy[:, 0].tolist() == [0, 400]
    tracker.reset()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_score": 1.5}, r"min_score must be in \[0, 1\], got 1.5"),
        ({"frame_rate": 0.0}, "frame_rate must be positive"),
        ({"lost_s": -1.0}, "lost_s must not be negative"),
        ({"camera_motion": True}, "camera_motion needs tracker"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make("bytetrack", **settings)
