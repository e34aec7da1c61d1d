"""Boxes in the results of engines that suppress overlaps themselves."""

import numpy as np

from model.detections import Detections
from model.engines.found import read_found, write_found


def boxes(count: int, seed: int) -> Detections:
    random = np.random.default_rng(seed)
    return Detections(
        xyxy=random.normal(0, 1000, (count, 4)).astype(np.float32),
        score=random.uniform(0, 1, count).astype(np.float32),
        class_id=random.integers(0, 1000, count),
    )


def test_boxes_come_back_to_the_bit_and_what_is_behind_them_says_nothing() -> None:
    rows = np.full((3, 1 + 5, 6), np.nan, np.float32)
    written = [boxes(5, 0), boxes(0, 1), boxes(2, 2)]
    write_found(written, rows)
    assert rows[:, 0].tolist() == [[5, 0, 0, 0, 0, 0], [0] * 6, [2, 0, 0, 0, 0, 0]]
    for found, expected in zip(read_found(rows), written, strict=True):
        for column in ("xyxy", "score", "class_id"):
            assert getattr(found, column).tobytes() == getattr(expected, column).tobytes()


def test_what_was_read_stays_when_the_slot_is_used_again() -> None:
    rows = np.zeros((1, 3, 6), np.float32)
    write_found([boxes(2, 3)], rows)
    (found,) = read_found(rows)
    rows[:] = -1
    assert found.xyxy.tobytes() == boxes(2, 3).xyxy.tobytes()
    assert found.score.tobytes() == boxes(2, 3).score.tobytes()
