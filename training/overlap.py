# SPDX-License-Identifier: Apache-2.0
"""Complete IoU of boxes (arXiv 1911.08287), for assignment and as a loss. Axes: `*N` any."""

import math
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

EPSILON: Final = 1e-7
"""Keeps empty boxes finite; added to heights and areas, as in the published training."""


def complete_iou(first: Float[Tensor, "*N 4"], second: Float[Tensor, "*M 4"]) -> Tensor:
    """Return the complete IoU of each pair of xyxy boxes; shapes are broadcast.

    IoU, less the squared distance of the centres over the squared diagonal of the box around both,
    less what their shapes differ: 1 for equal boxes, below 0 for boxes far apart. The weight of
    the last part is taken as a constant by gradients.
    """
    left_1, top_1, right_1, bottom_1 = first.unbind(-1)
    left_2, top_2, right_2, bottom_2 = second.unbind(-1)
    width_1, height_1 = right_1 - left_1, bottom_1 - top_1 + EPSILON
    width_2, height_2 = right_2 - left_2, bottom_2 - top_2 + EPSILON
    across = (torch.minimum(right_1, right_2) - torch.maximum(left_1, left_2)).clamp(min=0)
    down = (torch.minimum(bottom_1, bottom_2) - torch.maximum(top_1, top_2)).clamp(min=0)
    shared = across * down
    iou = shared / (width_1 * height_1 + width_2 * height_2 - shared + EPSILON)

    apart_x = (left_2 + right_2 - left_1 - right_1) / 2
    apart_y = (top_2 + bottom_2 - top_1 - bottom_1) / 2
    around_x = torch.maximum(right_1, right_2) - torch.minimum(left_1, left_2)
    around_y = torch.maximum(bottom_1, bottom_2) - torch.minimum(top_1, top_2)
    distance = (apart_x.square() + apart_y.square()) / (
        around_x.square() + around_y.square() + EPSILON
    )

    angle = torch.atan(width_2 / height_2) - torch.atan(width_1 / height_1)
    shape = 4 / math.pi**2 * angle.square()
    weight = (shape / (shape - iou + 1 + EPSILON)).detach()
    return iou - distance - weight * shape
