# SPDX-License-Identifier: Apache-2.0
"""Small trainings for tests: pictures with two rectangles each, and recipes of seconds."""

from pathlib import Path
from typing import Any

import numpy as np

from model.config import Settings
from tests.training.datasets_on_disk import add, write_yaml
from training.recipe import Recipe

STILL = {
    "mosaic": 0,
    "mixup": 0,
    "copy_paste": 0,
    "affine": {"scale": 0, "translate": 0},
    "colours": {"hue": 0, "saturation": 0, "value": 0},
    "flip_left_right": 0,
}
"""No augmentation."""


def write_data(root: Path, count: int = 8, side: int = 96, **values: object) -> Path:
    """A data.yaml of pictures with a rectangle in each half; val is train."""
    rng = np.random.default_rng(0)
    half = side // 2
    for number in range(count):
        boxes = []
        for left in (0, half):
            x, y = (int(v) for v in rng.integers(2, half // 3, 2))
            w, h = (int(v) for v in rng.integers(half // 2, half - x - 1, 2))
            boxes.append((int(rng.integers(3)), left + x, y, left + x + w, y + 2 * h))
        add(root, f"train/{number}", boxes, (side, side))
    return write_yaml(root, **{"val": "images/train"} | values)


def tiny(**changes: Any) -> Recipe:
    """Size T at 64 pixels in float32 on the CPU, every random augmentation on."""
    values = {
        "model": "T",
        "epochs": 2,
        "sampling": {"batch_size": 2, "image_size": 64},
        "loading": {"workers": 0},
        "warm_up": {"epochs": 1, "min_batches": 0},
        "averaging": {"ramp": 5},
        "nominal_batch": 4,
        "precision": "f32",
        "device": "cpu",
        "checkpoint_minutes": 0,
        "evaluate_every": 100,
    }
    return Recipe.model_validate(values | changes)


def as_overrides(settings: Settings) -> list[str]:
    """Settings as the command line takes them."""
    tree = settings.model_dump(mode="json", exclude_unset=True)
    return [word for name, value in tree.items() for word in ("--set", f"{name}={value!r}")]
