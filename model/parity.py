# SPDX-License-Identifier: Apache-2.0
"""How far an artefact is from eager torch: on pictures made from a seed, which need no data.

Axes: B batch, H and W height and width of the canvas, A anchor points.
"""

from contextlib import closing
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float32, UInt8

from model.built import MAX_BOX_PX, MAX_SCORE, Accuracy, Built, Parity
from model.config import EngineName, ModelConfig
from model.engines import Engine, build_engine
from model.errors import PrecisionLost

SEED: Final = 0
SHAPES: Final = ((1, 64, 96), (2, 160, 128))
"""Batch, height and width, for graphs that take any."""
CELLS_PX: Final = (4, 16, 64)
"""Sides of the coloured squares that made pictures are a mean of."""

Shape = tuple[int, int, int]


def make_pictures(shape: Shape, seed: int = SEED) -> UInt8[np.ndarray, "B H W 3"]:
    """Make pictures with something in them at every scale that a detector looks at."""
    batch, height, width = shape
    random = np.random.default_rng(seed)
    total = np.zeros((batch, height, width, 3), np.float32)
    for side in CELLS_PX:
        cells = random.integers(0, 256, (batch, -(-height // side), -(-width // side), 3))
        total += cells.repeat(side, axis=1).repeat(side, axis=2)[:, :height, :width]
    return (total / len(CELLS_PX)).astype(np.uint8)


def measure_parity(weights: Path, artefact: Path, built: Built) -> Parity:
    """Give both the same pictures and return the largest differences."""
    fixed = built.input_shape[:3]
    shapes = (fixed,) if -1 not in fixed else SHAPES
    worst = [
        difference(run_once(artefact, built.engine, pictures), run_once(weights, "torch", pictures))
        for pictures in map(make_pictures, shapes)
    ]
    return Parity(
        seed=SEED,
        shapes=shapes,
        box_px=max(box_px for box_px, _ in worst),
        score=max(score for _, score in worst),
    )


def difference(
    actual: Float32[np.ndarray, "B rows A"], expected: Float32[np.ndarray, "B rows A"]
) -> tuple[float, float]:
    """Return the largest difference of a side of a box, and of a score; infinite if undefined."""
    apart = np.nan_to_num(np.abs(actual - expected), nan=np.inf)
    return float(apart[:, :4].max()), float(apart[:, 4:].max())


def run_once(
    model: Path, engine: EngineName, pictures: UInt8[np.ndarray, "B H W 3"]
) -> Float32[np.ndarray, "B rows A"]:
    """Build an engine of exact float32 for these pictures, and run it on them."""
    batch, height, width, _ = pictures.shape
    with closing(exact_engine(model, engine, (height, width), batch=batch)) as built:
        return built.infer(pictures)


def exact_engine(
    model: Path, engine: EngineName, image_hw: tuple[int, int], batch: int = 1
) -> Engine:
    config = ModelConfig(weights=model, engine=engine, precision="accuracy")
    return build_engine(config, image_hw=image_hw, batch=batch, num_requests=1)


def refuse_differences(output: Path, parity: Parity) -> None:
    """Refuse an artefact that is too far from eager torch."""
    if parity.box_px > MAX_BOX_PX or parity.score > MAX_SCORE:
        raise PrecisionLost(
            f"{output}: not written: it lies up to {parity.box_px:.3g} px (limit {MAX_BOX_PX:g}) "
            f"and {parity.score:.3g} of score (limit {MAX_SCORE:g}) from eager torch"
        )


def refuse_loss(output: Path, accuracy: Accuracy, max_ap_loss: float) -> None:
    """Refuse an artefact that finds less than it may."""
    loss = accuracy.eager_ap - accuracy.artefact_ap
    if loss > max_ap_loss:
        raise PrecisionLost(
            f"{output}: not written: AP on {accuracy.data} at {accuracy.image_size} px falls from "
            f"{accuracy.eager_ap:.4f} to {accuracy.artefact_ap:.4f}, by {loss:.4f}, more than "
            f"--max-ap-loss {max_ap_loss:g}"
        )
