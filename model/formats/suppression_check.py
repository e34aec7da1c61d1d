# SPDX-License-Identifier: Apache-2.0
"""Whether the suppression inside an ONNX graph keeps what ours keeps. Axes: B batch, K boxes."""

from pathlib import Path

import numpy as np

from model.config import Suppression
from model.engines.onnx import INPUT, require_runtime
from model.errors import PrecisionLost
from model.formats.onnx import OnnxGraph
from model.formats.suppression import OUTPUTS
from model.parity import SHAPES, make_pictures
from model.suppression import suppress


def check_suppression(
    plain: OnnxGraph, settings: Suppression, num_classes: int, output: Path
) -> int:
    """Run both on made pictures, the better half of all anchors at least being candidates.

    Returns:
        How many boxes were kept, the same ones by both.

    Raises:
        PrecisionLost: they keep different boxes.
    """
    kept = 0
    for shape in SHAPES:
        pictures = make_pictures(shape)
        (predictions,) = run_graph(plain, pictures)
        middle = float(np.median(predictions[:, 4:].max(axis=1)))
        low = settings.model_copy(update={"min_score": min(settings.min_score, middle)})
        inside = plain.with_suppression(low, num_classes=num_classes)
        for rows, *found in zip(predictions, *run_graph(inside, pictures), strict=True):
            boxes, scores, class_ids, count = found
            ours = suppress(rows, low)
            same = (
                int(count) == len(ours)
                and np.array_equal(class_ids[:count], ours.class_id)
                and np.allclose(boxes[:count], ours.xyxy, atol=1e-3)
                and np.allclose(scores[:count], ours.score, atol=1e-6)
            )
            if not same:
                raise PrecisionLost(
                    f"{output}: not written: suppression in the graph keeps {int(count)} boxes of "
                    f"a made picture, and ours keeps {len(ours)}, or others"
                )
            kept += len(ours)
    return kept


def run_graph(graph: OnnxGraph, pictures: np.ndarray) -> list[np.ndarray]:
    """Return the outputs of a graph that is not on disk yet."""
    runtime = require_runtime()
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(graph.model, options, providers=["CPUExecutionProvider"])
    names = ["predictions"] if graph.built.nms is None else list(OUTPUTS)
    return session.run(names, {INPUT: pictures})
