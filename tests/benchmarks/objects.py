# SPDX-License-Identifier: Apache-2.0
"""Objects and logits without pictures, for measuring and testing assignment and losses."""

import torch

from model.head import STRIDES, LevelLogits, Logits
from training.targets import Targets


def random_targets(
    num_images: int,
    each: int,
    *,
    image_size: int,
    num_classes: int,
    mean_size: float,
    seed: int = 0,
) -> Targets:
    """The same number of objects in each image, their sides spread by a factor of two or so."""
    random = torch.Generator().manual_seed(seed)
    total = num_images * each
    centre = torch.rand(total, 2, generator=random) * image_size
    half = mean_size / 2 * torch.randn(total, 2, generator=random).mul(0.7).exp()
    return Targets(
        image=torch.arange(num_images).repeat_interleave(each),
        class_id=torch.randint(num_classes, (total,), generator=random),
        xyxy=torch.cat((centre - half, centre + half), dim=1).clamp(0, image_size),
    )


def random_logits(num_images: int, num_classes: int, image_size: int, seed: int = 0) -> Logits:
    """What a head might say: boxes at random, scores of a few per cent."""
    random = torch.Generator().manual_seed(seed)
    p3, p4, p5 = (
        LevelLogits(
            torch.randn(num_images, 64, side, side, generator=random),
            torch.randn(num_images, num_classes, side, side, generator=random) - 4,
        )
        for side in (image_size // stride for stride in STRIDES)
    )
    return p3, p4, p5
