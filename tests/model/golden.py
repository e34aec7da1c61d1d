# SPDX-License-Identifier: Apache-2.0
"""Values that need no checkpoint: of the published network, in float64.

Its weights come from a formula of each tensor's name and position.
"""

from dataclasses import dataclass

import pytest
import torch

from model.network import Detector
from model.scales import ScaleName


@dataclass(frozen=True, kw_only=True)
class Golden:
    """What a size says about `golden_image`; boxes as centre, width and height."""

    scale: ScaleName
    class_width: int
    box_sum: float
    score_sum: float
    first_box: tuple[float, ...]
    first_scores: tuple[float, ...]
    """Of the first three classes."""
    last_box: tuple[float, ...]


def assert_golden(detector: Detector, golden: Golden, *, last_box_abs: float) -> None:
    """Hold a detector to every printed digit; the last box has one digit less in one table."""
    with torch.inference_mode():
        predictions = detector(golden_image())[0]
    low, high = predictions[:2], predictions[2:4]
    cxcywh = torch.cat(((low + high) / 2, high - low))
    assert predictions.shape == (84, 126)
    assert cxcywh.sum().item() == pytest.approx(golden.box_sum, abs=6e-9, rel=0)
    assert predictions[4:].sum().item() == pytest.approx(golden.score_sum, abs=6e-9, rel=0)
    assert cxcywh[:, 0].tolist() == pytest.approx(golden.first_box, abs=6e-8, rel=0)
    assert predictions[4:7, 0].tolist() == pytest.approx(golden.first_scores, abs=6e-9, rel=0)
    assert cxcywh[:, -1].tolist() == pytest.approx(golden.last_box, abs=last_box_abs, rel=0)


def golden_values(name: str, place: int, shape: torch.Size) -> torch.Tensor:
    index = torch.arange(shape.numel(), dtype=torch.float64)
    if name.endswith("num_batches_tracked"):
        values = torch.zeros_like(index)
    elif len(shape) == 4:
        values = (2 / shape[1:].numel()) ** 0.5 * torch.sin(1.3 * index + 0.5 * place)
    elif name.endswith("running_var"):
        values = 1 + 0.5 * torch.sin(3 * index + place) ** 2
    elif name.endswith("running_mean"):
        values = 0.1 * torch.sin(2 * index + place)
    elif name.endswith("bn.weight"):
        values = 1 + 0.1 * torch.sin(index + place)
    else:
        values = 0.1 * torch.cos(index + place)
    return values.reshape(shape)


def golden_image() -> torch.Tensor:
    channel = torch.arange(1, 4, dtype=torch.float64)[:, None, None]
    y = torch.arange(96, dtype=torch.float64)[:, None]
    x = torch.arange(64, dtype=torch.float64)
    return (0.5 + 0.5 * torch.sin(0.01 * channel * (y + 2 * x)))[None]
