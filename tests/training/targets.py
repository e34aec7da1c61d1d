# SPDX-License-Identifier: Apache-2.0
"""Objects, and the maps whose losses the original training code was asked for."""

from collections.abc import Sequence

import torch

from model.head import STRIDES, LevelLogits, Logits
from training.pgi import GuidedLogits
from training.targets import Targets

Box = tuple[float, float, float, float]


def make_targets(
    rows: Sequence[tuple[int, int, Box]], annotated: torch.Tensor | None = None
) -> Targets:
    """Objects from rows of image, class and xyxy in pixels."""
    return Targets(
        image=torch.tensor([image for image, _, _ in rows], dtype=torch.int64),
        class_id=torch.tensor([class_id for _, class_id, _ in rows], dtype=torch.int64),
        xyxy=torch.tensor([xyxy for _, _, xyxy in rows], dtype=torch.float32).reshape(-1, 4),
        annotated=annotated,
    )


def rows_of(targets: Targets, rows: Sequence[int]) -> Targets:
    """The same objects in another order, or some of them."""
    order = torch.tensor(rows, dtype=torch.int64)
    return Targets(
        image=targets.image[order],
        class_id=targets.class_id[order],
        xyxy=targets.xyxy[order],
        annotated=targets.annotated,
    )


def golden_logits(seed: int) -> Logits:
    """Maps of two images of 64 pixels and 3 classes, as sines of the place of each value."""
    p3, p4, p5 = (_golden_level(seed, place, 64 // stride) for place, stride in enumerate(STRIDES))
    return p3, p4, p5


def golden_guided(main: int, *auxiliary: int) -> GuidedLogits:
    return GuidedLogits(golden_logits(main), tuple(golden_logits(seed) for seed in auxiliary))


def golden_targets() -> Targets:
    """Four objects in the first of two images; the last contains no anchor point."""
    centre_xy = 64 * torch.tensor([(0.50, 0.50), (0.45, 0.55), (0.10, 0.12), (0.515, 0.515)])
    sides = 64 * torch.tensor([(0.60, 0.60), (0.50, 0.40), (0.15, 0.20), (0.02, 0.02)])
    return Targets(
        image=torch.zeros(4, dtype=torch.int64),
        class_id=torch.tensor([0, 1, 2, 1]),
        xyxy=torch.cat((centre_xy - sides / 2, centre_xy + sides / 2), dim=1),
    )


def _golden_level(seed: int, place: int, side: int) -> LevelLogits:
    shape = torch.Size((2, 67, side, side))
    count = torch.arange(shape.numel(), dtype=torch.float64)
    values = (1.5 * torch.sin(0.37 * count + place + seed)).float().reshape(shape)
    return LevelLogits(values[:, :64], values[:, 64:] - 2.0)


NO_OBJECTS = make_targets([])
