# SPDX-License-Identifier: Apache-2.0
"""Average precision of a detector on labelled images, by hand and against other ways to it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from model.average_precision import measure, read_coco
from model.config import ModelConfig
from model.detections import Detections
from model.engines import build_engine
from model.errors import DataError
from model.reparam import fuse
from model.weights import load_detector, save_weights
from tests.model.builders import make_calm_detector, make_card
from tests.training.datasets_on_disk import Box, split_of
from tests.training.found_boxes import SAME, SQUARES, boxes
from training.class_map import ClassMap
from training.evaluation import Views, evaluate, find, score
from training.evaluation_data import read_evaluation_split
from training.evaluation_report import EvaluationReport
from training.loading import Loading
from training.predictors import EnginePredictor, TorchPredictor
from training.records import Split


def scored(split: Split, *found: Detections) -> EvaluationReport:
    return score(split, dict(enumerate(found)), SAME, SQUARES)


def of(report: EvaluationReport, name: str) -> dict[str, float]:
    return next(row.figures for row in report.classes if row.name == name)


def test_average_precision_is_that_computed_by_hand(tmp_path: Path) -> None:
    split = split_of(tmp_path, [[(0, 10, 10, 50, 50)], [(0, 20, 20, 60, 60)]])
    report = scored(
        split,
        boxes((0.9, 0, 10, 10, 50, 50), (0.8, 0, 90, 90, 110, 110)),  # right, then wrong
        boxes((0.7, 0, 20, 20, 60, 60)),  # right
    )
    # Precision is 1 up to recall .5, and 2/3 beyond: 51 and 50 of the 101 recalls.
    assert report.overall["AP"] == pytest.approx((51 + 50 * 2 / 3) / 101, abs=1e-4)
    assert report.overall["AP50"] == report.overall["AP"]


def test_a_box_counts_up_to_the_overlap_it_has(tmp_path: Path) -> None:
    split = split_of(tmp_path, [[(0, 0, 0, 100, 100)]])
    report = scored(split, boxes((0.9, 0, 0, 0, 100, 72)))
    assert report.overall["AP50"] == 1
    assert report.overall["AP75"] == 0
    assert report.overall["AP"] == pytest.approx(0.5)  # .50, .55, .60, .65, .70


def test_objects_are_sorted_into_sizes_by_their_pixels(tmp_path: Path) -> None:
    there: list[list[Box]] = [[(0, 0, 0, 20, 20), (0, 40, 40, 100, 100)]]
    report = scored(split_of(tmp_path, there), boxes((0.9, 0, 40, 40, 100, 100)))
    assert report.overall["AP_small"] == 0
    assert report.overall["AP_medium"] == 1
    assert report.overall["AP_large"] == -1  # there is none


def test_an_image_counts_only_for_the_classes_it_was_annotated_for(tmp_path: Path) -> None:
    there: list[list[Box]] = [[(0, 10, 10, 50, 50)], [(1, 10, 10, 50, 50)]]
    wrong_in_the_first = boxes((0.9, 0, 10, 10, 50, 50), (0.95, 1, 60, 60, 100, 100))
    right_in_the_second = boxes((0.9, 1, 10, 10, 50, 50))
    found = [wrong_in_the_first, right_in_the_second]

    def ap(annotated: list[list[bool]]) -> float:
        split = split_of(tmp_path, there, annotated=annotated)
        looked = iter(found)

        class Rows(TorchPredictor):
            def __init__(self) -> None:
                pass

            def __call__(self, images: torch.Tensor) -> np.ndarray:
                return np.stack([as_rows(next(looked)) for _ in images])

        views = Views(protocol="square", image_size=160, batch_size=2, loading=Loading(workers=0))
        return of(evaluate(Rows(), split.classes, split, views), "green")["AP"]

    assert ap([[True, True, True]] * 2) == pytest.approx(0.5, abs=0.01)
    assert ap([[True, False, True], [True, True, True]]) == 1


def as_rows(found: Detections) -> np.ndarray:
    """Boxes of a picture 120 high and 160 wide as predictions on a square of 160."""
    rows = np.zeros((7, len(found) + 1), np.float32)
    rows[:4, :-1] = (found.xyxy + np.array((0, 20, 0, 20))).T
    rows[4 + found.class_id, np.arange(len(found))] = found.score
    return np.pad(rows, ((0, 0), (0, 3 - rows.shape[1])))


def test_only_classes_that_both_know_count(tmp_path: Path) -> None:
    known = ClassMap.by_name(("cat", "blue", "red"), ("red", "green", "blue"))
    assert (known.of_model, known.of_data) == ((2, 1), (0, 2))
    moved = known.to_data(boxes((0.9, 0, 0, 0, 9, 9), (0.8, 1, 0, 0, 9, 9), (0.7, 2, 0, 0, 9, 9)))
    assert moved.class_id.tolist() == [2, 0]
    there: list[list[Box]] = [[(0, 10, 10, 50, 50), (1, 60, 60, 90, 90)]]
    split = split_of(tmp_path, there)
    report = score(split, {0: boxes((0.9, 0, 10, 10, 50, 50))}, known, SQUARES)
    assert report.overall["AP"] == 1
    assert report.unknown == ("green",)
    assert "not counted: green" in printed(report)


def test_a_model_and_data_without_a_class_in_common_are_refused() -> None:
    with pytest.raises(DataError, match=r"no class in common: the model knows cat, the data red"):
        ClassMap.by_name(("cat",), ("red",))


def test_nothing_found_is_an_ap_of_zero(tmp_path: Path) -> None:
    report = scored(split_of(tmp_path, [[(0, 10, 10, 50, 50)]]), boxes())
    assert report.overall["AP"] == 0
    assert report.overall["AP_medium"] == 0
    assert report.overall["AP_small"] == -1
    assert of(report, "green")["AP"] == -1
    assert report.classes[0].threshold is None


def test_a_report_is_json_and_a_table_that_fits_a_terminal(tmp_path: Path) -> None:
    report = scored(split_of(tmp_path, [[(0, 10, 10, 50, 50)]]), boxes((0.9, 0, 10, 10, 50, 50)))
    tree = json.loads(json.dumps(report.as_dict()))
    assert tree["AP"] == tree["classes"]["red"]["AP"] == 1
    assert tree["classes"]["red"]["threshold"]["min_score"] == 0.9
    assert tree["confusion"]["counts"][0][0] == 1
    text = printed(report)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert "no object of: green, blue" in text


def printed(report: EvaluationReport) -> str:
    console = Console(width=80)
    with console.capture() as captured:
        console.print(report.table())
    return captured.get()


def test_a_torch_detector_and_an_engine_find_the_same(tmp_path: Path) -> None:

    there: list[list[Box]] = [[(0, 10, 10, 50, 50)], [(1, 30, 30, 90, 90)], [(2, 5, 60, 50, 110)]]
    split = split_of(tmp_path, there)
    detector = make_calm_detector()
    save_weights(tmp_path / "t.safetensors", fuse(detector), make_card())
    detector.train()
    views = Views(image_size=64, batch_size=2, loading=Loading(workers=0))
    by_torch = find(TorchPredictor(detector), SAME, split, views)
    assert detector.training
    engine = EnginePredictor(
        ModelConfig(weights=tmp_path / "t.safetensors", engine="openvino", precision="accuracy")
    )
    by_engine = find(engine, SAME, split, views)
    engine.close()
    for index in range(3):
        assert len(by_torch[index]) > 0
        ours, theirs = by_torch[index].score[:20], by_engine[index].score[:20]
        np.testing.assert_allclose(ours, theirs, atol=2e-3)
    figures = score(split, by_torch, SAME, views).overall
    assert score(split, by_engine, SAME, views).overall == pytest.approx(figures, abs=0.003)


@pytest.mark.slow
@pytest.mark.needs_data
def test_on_real_images_it_agrees_with_the_check_of_exports(data: Path, coco_weights: Path) -> None:
    """Last run 2026-11-22: they agree, in 14 s."""
    detector, card = load_detector(coco_weights)
    split = read_evaluation_split(data / "coco128")
    views = Views(protocol="square", image_size=320, batch_size=8, loading=Loading(workers=0))
    report = evaluate(TorchPredictor(detector), card.classes, split, views)
    config = ModelConfig(weights=coco_weights, engine="openvino", precision="accuracy")
    engine = build_engine(config, image_hw=(320, 320), num_requests=1)
    expected = measure(engine, read_coco(data / "coco128", card.classes))
    engine.close()
    assert report.overall["AP"] == pytest.approx(expected["AP"], abs=0.003)
    assert report.overall["AP50"] == pytest.approx(expected["AP50"], abs=0.003)
