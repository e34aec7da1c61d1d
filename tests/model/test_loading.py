# SPDX-License-Identifier: Apache-2.0
"""The detector as a function of pictures."""

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from model import Detections, LoadedDetector, load
from model.errors import ConfigError, WeightsError
from model.importing import import_weights
from model.letterbox import PAD, Letterbox, rectangle
from model.loading import MAX_ENGINES
from tests.model.builders import make_image


@pytest.fixture(scope="module")
def detector(weights: Path) -> Iterator[LoadedDetector]:
    loaded = load(weights, engine="torch", image_size=64)
    yield loaded
    loaded.close()


def same(first: Detections, second: Detections) -> bool:
    return (
        np.array_equal(first.xyxy, second.xyxy)
        and np.array_equal(first.score, second.score)
        and np.array_equal(first.class_id, second.class_id)
    )


def test_one_picture_gives_detections_in_its_own_pixels(detector: LoadedDetector) -> None:
    found = detector(make_image(100, 200), min_score=0.05)
    assert len(found) > 0
    assert (found.xyxy >= 0).all()
    assert (found.xyxy <= [200, 100, 200, 100]).all()
    assert (np.diff(found.score) <= 0).all()


def test_pictures_of_several_sizes_give_a_list(detector: LoadedDetector) -> None:
    images = [make_image(100, 200), make_image(60, 50, seed=1), make_image(64, 64, seed=2)]
    together = detector(images, min_score=0.05)
    alone = [detector(image, min_score=0.05) for image in images]
    assert all(same(*pair) for pair in zip(together, alone, strict=True))


def test_no_pictures_give_no_results(detector: LoadedDetector) -> None:
    assert detector([]) == []


def test_chosen_classes_are_a_part_of_all(detector: LoadedDetector) -> None:
    image = make_image(100, 200)
    everything = detector(image, min_score=0.01)
    class_id = int(everything.class_id[0])
    chosen = detector(image, min_score=0.01, classes=(detector.classes[class_id],))
    assert same(chosen, everything[everything.class_id == class_id])
    assert same(chosen, detector(image, min_score=0.01, classes=detector.classes[class_id]))


def test_square_pads_to_a_square(detector: LoadedDetector) -> None:
    image = make_image(100, 200)
    detector(image, square=True)
    detector(image)
    assert {(64, 64), (32, 64)} <= set(detector._engines)


def test_only_a_few_shapes_are_kept_ready(weights: Path) -> None:
    detector = load(weights, engine="torch", image_size=320)
    for width in range(10, 10 + 60 * (MAX_ENGINES + 2), 60):
        detector(make_image(320, width))
    assert len(detector._engines) == MAX_ENGINES
    detector.close()
    assert len(detector._engines) == 0


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(np.zeros((8, 8, 3), np.float32), id="float"),
        pytest.param(np.zeros((8, 8), np.uint8), id="grey"),
        pytest.param(np.zeros((8, 8, 4), np.uint8), id="four channels"),
        pytest.param(np.zeros((0, 8, 3), np.uint8), id="no rows"),
        pytest.param(np.zeros((1, 8, 8, 3), np.uint8), id="a batch"),
        pytest.param(["picture.jpg"], id="a path"),
    ],
)
def test_what_is_not_a_picture_is_refused(detector: LoadedDetector, image: np.ndarray) -> None:
    with pytest.raises((ValueError, TypeError), match="images"):  # TypeError: the type checker's
        detector(image)


def test_unknown_classes_are_named_beside_the_known(detector: LoadedDetector) -> None:
    with pytest.raises(ValueError, match=r"unknown 'cat'; known: person, bicycle, car"):
        detector(make_image(), classes=("person", "cat"))


@pytest.mark.parametrize("limits", [{"min_score": 1.5}, {"max_iou": -0.1}])
def test_a_limit_outside_0_and_1_is_refused(
    detector: LoadedDetector, limits: dict[str, float]
) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(limits))}: expected a number from 0 to 1"):
        detector(make_image(), **limits)


def test_loading_checks_file_and_options_at_once(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="No such file"):
        load(tmp_path / "none.safetensors")
    with pytest.raises(ConfigError, match=r"load: image_size: "):
        load(weights, image_size=100)


@pytest.fixture(scope="module")
def golden(data: Path) -> dict[str, object]:
    return json.loads((data / "weights" / "golden-detections.json").read_text())


def letterbox_by_cv2(image: np.ndarray, letterbox: Letterbox) -> np.ndarray:
    """Resize as the golden values were: linear, without antialiasing."""
    height, width = letterbox.resized_hw
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    canvas = np.full((*letterbox.canvas_hw, 3), PAD, np.uint8)
    top, left = letterbox.pad_top_px, letterbox.pad_left_px
    canvas[top : top + height, left : left + width] = resized
    return canvas


@pytest.mark.parametrize("square", [True, False], ids=["square", "rectangle"])
def test_golden_pictures(
    data: Path,
    golden: dict[str, list[dict]],
    square: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import_weights(data / "weights" / "yolov9t-coco-fused.safetensors", tmp_path / "t")
    monkeypatch.setattr("model.loading.letterbox_image", letterbox_by_cv2)
    detector = load(tmp_path / "t", engine="torch")
    for entry in golden["images"]:
        path = data / "coco128" / "images" / "val2017" / entry["file"]
        image = np.asarray(Image.open(path).convert("RGB"))
        expected = entry["detections" if square else "detections_rect"]
        found = detector(image, square=square)
        assert rectangle(image.shape[:2], 640) in detector._engines or square
        np.testing.assert_array_equal(found.class_id, [box["class_id"] for box in expected])
        np.testing.assert_allclose(found.score, [box["score"] for box in expected], atol=0.01)
        np.testing.assert_allclose(found.xyxy, [box["xyxy"] for box in expected], atol=1)
