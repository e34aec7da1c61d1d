# SPDX-License-Identifier: Apache-2.0
"""What one camera wants of what the detector finds, and thresholds that differ by class."""

import numpy as np
import pytest

from model.detections import Detections
from model.errors import ConfigError
from pipeline.cameras import CameraConfig
from pipeline.config import PipelineConfig, TrackingConfig
from pipeline.tracking.thresholds import Thresholds
from pipeline.tracking.tracker import TrackerName, make_tracker
from pipeline.tracking.wanted import inside, wanted_by

CLASSES = ("person", "car", "dog")
SIZE_HW = (100, 200)


def boxes(*rows: tuple[float, int, tuple[float, float]]) -> Detections:
    """Boxes of 20 x 20 from score, class and middle."""
    return Detections(
        xyxy=np.array([(x - 10, y - 10, x + 10, y + 10) for *_, (x, y) in rows], np.float32),
        score=np.array([score for score, *_ in rows], np.float32),
        class_id=np.array([number for _, number, _ in rows], np.int64),
    )


FOUND = boxes((0.9, 0, (50, 50)), (0.5, 1, (150, 50)), (0.3, 2, (50, 20)), (0.15, 0, (150, 80)))


@pytest.mark.parametrize(
    ("camera", "kept"),
    [
        ({}, [0, 1, 2, 3]),
        ({"classes": ["car", "dog"]}, [1, 2]),
        ({"min_score": 0.6}, [0, 1, 2, 3]),  # weak ones may continue a track
        ({"ignore": [[(0, 0), (0.5, 0), (0.5, 0.4), (0, 0.4)]]}, [0, 1, 3]),
        ({"ignore": [[(0, 0), (1, 0), (0.5, 0.5)], [(0.5, 0), (1, 0), (1, 1), (0.5, 1)]]}, [0]),
    ],
)
def test_a_camera_is_given_what_it_wants(camera: dict[str, object], kept: list[int]) -> None:
    wanted = wanted_by(CameraConfig.model_validate(camera), PipelineConfig(), CLASSES)
    assert wanted.of(FOUND, SIZE_HW).score.tolist() == FOUND.score[kept].tolist()


def test_without_a_tracker_only_boxes_that_count_are_wanted() -> None:
    config = PipelineConfig(tracking=TrackingConfig(kind="none"))
    camera = CameraConfig(min_score=0.4, scores={"dog": 0.2, "car": 0.6})
    wanted = wanted_by(camera, config, CLASSES)
    assert wanted.of(FOUND, SIZE_HW).class_id.tolist() == [0, 2]
    assert wanted.floor == 0.2


def test_a_camera_that_asks_for_little_lowers_the_floor_and_one_that_asks_for_much_does_not() -> (
    None
):
    little = wanted_by(CameraConfig(scores={"dog": 0.05}), PipelineConfig(), CLASSES)
    much = wanted_by(CameraConfig(min_score=0.8), PipelineConfig(), CLASSES)
    assert (little.floor, much.floor) == (0.05, 0.1)


@pytest.mark.parametrize("camera", [{"classes": ["cat"]}, {"scores": {"cat": 0.3}}])
def test_a_class_that_the_model_does_not_know_is_named(camera: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="the model knows no cat; it knows person, car, dog"):
        wanted_by(CameraConfig.model_validate(camera), PipelineConfig(), CLASSES)


def test_places_in_a_notch_of_a_polygon_are_outside() -> None:
    letter_u = [(0, 0), (0.3, 0), (0.3, 0.7), (0.7, 0.7), (0.7, 0), (1, 0), (1, 1), (0, 1)]
    places = np.array([(0.1, 0.5), (0.5, 0.5), (0.5, 0.8), (0.9, 0.1), (1.1, 0.5)])
    assert inside(places, letter_u).tolist() == [True, False, True, True, False]


def test_levelled_scores_keep_their_order_and_meet_the_common_threshold_where_their_own() -> None:
    thresholds = Thresholds(0.25, {1: 0.6, 2: 0.1})
    own = np.array((0.25, 0.6, 0.1), np.float32)
    numbers = np.arange(3)
    assert thresholds.levelled(own, numbers).tolist() == [0.25] * 3
    before = np.nextafter(own, np.float32(0))
    assert (thresholds.levelled(before, numbers) < 0.25).all()
    rising = np.linspace(0, 1, 50, dtype=np.float32)
    for number in range(3):
        levelled = thresholds.levelled(rising, np.full(50, number))
        assert (np.diff(levelled) > 0).all()
        assert (levelled[0], levelled[-1]) == (0, pytest.approx(1))


@pytest.mark.parametrize("kind", ["bytetrack", "sort", "ocsort", "botsort", "none"])
def test_each_class_has_tracks_from_its_own_score_on_and_shows_its_own_scores(
    kind: TrackerName,
) -> None:
    tracker = make_tracker(kind, min_score=Thresholds(0.25, {1: 0.6, 2: 0.1}), frame_rate=25)
    rows = ((0.3, 0, (20, 50)), (0.5, 1, (60, 50)), (0.7, 1, (100, 50)), (0.12, 2, (140, 50)))
    for index in range(4):
        tracks = tracker.update(boxes(*rows), index * 40_000_000)
        assert tracks.score.tolist() == pytest.approx([0.3, 0.7, 0.12])
