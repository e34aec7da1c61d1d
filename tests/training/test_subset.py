# SPDX-License-Identifier: Apache-2.0
"""Splits with some of their classes."""

from pathlib import Path

import pytest

from model.errors import ConfigError
from tests.training.datasets_on_disk import split_of
from training.subset import only


def test_objects_of_other_classes_are_gone_and_the_rest_renumbered(tmp_path: Path) -> None:
    images = [[(0, 0, 0, 9, 9), (2, 5, 5, 30, 20)], [(1, 0, 0, 9, 9)]]
    split = only(split_of(tmp_path, images), ("blue", "red"))
    assert split.classes == ("blue", "red")
    assert len(split) == 2
    assert split.objects(0).class_id.tolist() == [1, 0]
    assert split.objects(0).xyxy[1].tolist() == [5, 5, 30, 20]
    assert len(split.objects(1)) == 0


def test_what_an_image_was_annotated_for_follows(tmp_path: Path) -> None:
    split = split_of(tmp_path, [[]], annotated=[(True, False, False)])
    assert only(split, ("blue", "red")).annotated(0).tolist() == [False, True]


def test_an_unknown_class_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the data has no mauve; it has red, green, blue"):
        only(split_of(tmp_path, [[]]), ("red", "mauve"))
