# SPDX-License-Identifier: Apache-2.0
"""What a loader gives. Axes: B batch, H and W of the images, M objects of the batch, C classes."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from model.letterbox import Letterbox
from training.augmentation import Sample
from training.sampling import Position


class TrainingBatch(NamedTuple):
    """Images to learn from, and where in training they stand."""

    images: UInt8[Tensor, "B 3 H W"]
    """RGB, in the memory format channels-last."""
    objects: Float[Tensor, "M 6"]
    """Rows of image, class, left, top, right, bottom; in pixels."""
    annotated: Bool[Tensor, "B C"]
    """Classes whose absence means something."""
    paths: tuple[str, ...]
    """The image that each sample was made around."""
    epoch: int
    step: int
    last: bool
    """Whether the epoch ends with this batch."""

    @property
    def following(self) -> Position:
        """Where training goes on after this batch."""
        if self.last:
            return Position(epoch=self.epoch + 1)
        return Position(epoch=self.epoch, step=self.step + 1)


class EvaluationBatch(NamedTuple):
    """Images to find objects in, and how they lie on their canvas."""

    images: UInt8[Tensor, "B 3 H W"]
    indices: tuple[int, ...]
    """Of the images in their split, which has the objects."""
    letterboxes: tuple[Letterbox, ...]
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """What a worker gives instead of a batch that cannot be made."""

    reason: str


def as_images(pixels: UInt8[np.ndarray, "B H W 3"]) -> UInt8[Tensor, "B 3 H W"]:
    """Return pictures as a tensor on the same memory."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def as_rows(samples: list[Sample]) -> Float[Tensor, "M 6"]:
    """Return the objects of all samples, each row beginning with the sample's place."""
    rows = [
        np.column_stack(
            (np.full(len(s.objects), place), s.objects.class_id, s.objects.xyxy)
        ).astype(np.float32)
        for place, s in enumerate(samples)
    ]
    return torch.from_numpy(np.concatenate(rows))
