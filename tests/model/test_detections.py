# SPDX-License-Identifier: Apache-2.0
"""Columns of one length, filtered together."""

import numpy as np
import pytest

from model import Detections
from tests.model.builders import make_detections


def test_a_mask_filters_every_column() -> None:
    found = make_detections(4)
    kept = found[found.class_id == 0]
    assert len(kept) == 2
    np.testing.assert_array_equal(kept.xyxy, found.xyxy[[0, 3]])
    np.testing.assert_array_equal(kept.score, found.score[[0, 3]])


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        pytest.param(slice(1, 3), [1, 2], id="slice"),
        pytest.param(np.array([3, 0]), [3, 0], id="positions"),
        pytest.param([2], [2], id="list"),
        pytest.param(np.zeros(4, bool), [], id="empty mask"),
        pytest.param(np.zeros(0, np.int64), [], id="no positions"),
    ],
)
def test_indexing_gives_detections(
    selection: np.ndarray | slice | list[int], expected: list[int]
) -> None:
    found = make_detections(4)[selection]
    np.testing.assert_array_equal(found.class_id, np.array(expected, np.int64) % 3)


def test_no_boxes_is_a_result() -> None:
    assert len(Detections.empty()) == 0
    assert Detections.empty().xyxy.shape == (0, 4)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"xyxy": np.zeros((3, 4), np.float32)}, id="too many boxes"),
        pytest.param({"score": np.zeros(2, np.float64)}, id="float64 scores"),
        pytest.param({"class_id": np.zeros((2, 1), np.int64)}, id="a column of two axes"),
        pytest.param({"class_id": np.zeros(2, np.int32)}, id="int32 classes"),
    ],
)
def test_a_wrong_column_is_refused(changes: dict[str, np.ndarray]) -> None:
    found = make_detections(2)
    columns = {"xyxy": found.xyxy, "score": found.score, "class_id": found.class_id}
    with pytest.raises(Exception, match=next(iter(changes))):
        Detections(**(columns | changes))
