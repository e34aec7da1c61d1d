# SPDX-License-Identifier: Apache-2.0
"""Predictions as they would be made on a GPU, made on a processor."""

from pathlib import Path

import numpy as np
import pytest

from model.average_precision import measure, read_coco
from model.card import read_card
from model.cuda.plan import NumberFormat
from model.cuda.predictions import PredictionsEngine
from model.engines.contract import Engine
from model.engines.torch import TorchEngine
from model.parity import difference, make_pictures

SHAPE = (2, 64, 96, 3)
PICTURES = make_pictures((2, 64, 96))


def make_engine(weights: Path, number_format: NumberFormat) -> PredictionsEngine:
    return PredictionsEngine(weights, SHAPE, number_format, device=-1)


@pytest.mark.parametrize(
    ("number_format", "most_px", "most_score"), [("f32", 1e-2, 1e-4), ("f16", 0.5, 1e-2)]
)
def test_its_predictions_are_those_of_eager_torch(
    weights: Path, number_format: NumberFormat, most_px: float, most_score: float
) -> None:
    engine = make_engine(weights, number_format)
    assert isinstance(engine, Engine)
    assert (engine.name, engine.precision) == ("cuda", number_format)
    predictions = engine.infer(PICTURES)
    expected = TorchEngine(weights, SHAPE, None).infer(PICTURES)
    box_px, score = difference(predictions, expected)
    assert (predictions.dtype, predictions.shape) == (np.float32, engine.output_shape)
    assert box_px < most_px
    assert score < most_score


@pytest.mark.slow
@pytest.mark.needs_data
def test_half_precision_costs_no_average_precision(coco_weights: Path, data: Path) -> None:
    """It was .4388 beside .4389 of float32 (bf16: .4425), on a processor, in 4 minutes."""
    pytest.importorskip("faster_coco_eval")
    labelled = read_coco(data / "coco128", read_card(coco_weights).classes)

    def ap(number_format: NumberFormat) -> float:
        engine = PredictionsEngine(coco_weights, (1, 640, 640, 3), number_format, device=-1)
        return measure(engine, labelled)["AP"]

    assert ap("f16") == pytest.approx(ap("f32"), abs=0.003)
