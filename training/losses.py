# SPDX-License-Identifier: Apache-2.0
"""What one head has to learn from an assignment: boxes, distributions of sides, scores.

Everything is computed in float32 or better, whatever the head computed in. Box and distribution
are looked at where an object is, never anywhere else. A score's cross entropy is linear in its
target, so that no table of targets is made.

Axes: B images, C classes, A anchor points, K values of each, P positives.
"""

from typing import Final, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from model.head import BINS, STRIDES, LevelLogits, Logits, anchor_points, expected_sides
from training.assignment import Assignment, GridLevel, Predicted
from training.overlap import complete_iou
from training.targets import Targets

LONGEST: Final = BINS - 1.01
"""Longest side a distribution is taught, in strides: it needs a bin on either side."""


class Terms(NamedTuple):
    """Sums over a batch, not yet divided by the sum of its target scores."""

    box: Float[Tensor, ""]
    """1 - complete IoU of each positive, times its target score."""
    score: Float[Tensor, ""]
    """Cross entropy of every score of every anchor point."""
    distribution: Float[Tensor, ""]
    """Cross entropy of the four distributions of each positive, times its target score."""


class Flat(NamedTuple):
    """What a head says, all levels in one."""

    levels: tuple[GridLevel, ...]
    box: Float[Tensor, "B 64 A"]
    score: Float[Tensor, "B C A"]
    point_xy: Float[Tensor, "A 2"]
    """In strides."""
    stride: Float[Tensor, " A"]


def flatten(logits: Logits) -> Flat:
    """Return the logits of all levels in one, in float32 or better."""
    box = torch.cat([level.box.flatten(2) for level in logits], dim=2)
    score = torch.cat([level.score.flatten(2) for level in logits], dim=2)
    exact = torch.promote_types(box.dtype, torch.float32)
    point_xy, stride = anchor_points(_blank(logits, exact))
    return Flat(
        levels=tuple(
            GridLevel(stride, *level.score.shape[2:])
            for stride, level in zip(STRIDES, logits, strict=True)
        ),
        box=box.to(exact),
        score=score.to(exact),
        point_xy=point_xy.T,
        stride=stride,
    )


@torch.no_grad()
def predict(flat: Flat) -> Predicted:
    """Return boxes and scores as assignment reads them."""
    sides = expected_sides(flat.box[..., None])[..., 0].mT
    xyxy = _around(flat.point_xy, sides) * flat.stride[:, None]
    return Predicted(levels=flat.levels, xyxy=xyxy.float(), score_logits=flat.score)


def measure(flat: Flat, targets: Targets, assignment: Assignment) -> Terms:
    """Compare what a head says with what it was assigned to say."""
    image, anchor = assignment.image, assignment.anchor
    point_xy, stride = flat.point_xy[anchor], flat.stride[anchor, None]
    wanted = targets.xyxy[assignment.object_id] / stride
    logits = flat.box[image, :, anchor]
    sides = expected_sides(logits[:, :, None, None])[..., 0, 0]
    overlap = complete_iou(_around(point_xy, sides), wanted)
    distribution = distribution_loss(logits, sides_around(point_xy, wanted))
    class_id = targets.class_id[assignment.object_id]
    present = flat.score[image, class_id, anchor] * assignment.score
    return Terms(
        box=((1 - overlap) * assignment.score).sum(),
        score=_absent(flat.score, targets.annotated) - present.sum(),
        distribution=(distribution * assignment.score).sum(),
    )


def distribution_loss(
    logits: Float[Tensor, "P 64"], sides: Float[Tensor, "P 4"]
) -> Float[Tensor, " P"]:
    """Return the cross entropy of each side's two nearest bins (arXiv 2006.04388), side by side."""
    likelihood = logits.unflatten(1, (4, BINS)).log_softmax(dim=2)
    lower = sides.long()
    share = sides - lower
    at_lower = likelihood.gather(2, lower[..., None])[..., 0]
    at_upper = likelihood.gather(2, lower[..., None] + 1)[..., 0]
    return -(at_lower * (1 - share) + at_upper * share).mean(dim=1)


def sides_around(
    point_xy: Float[Tensor, "P 2"], xyxy: Float[Tensor, "P 4"]
) -> Float[Tensor, "P 4"]:
    """Return the distances of a box's sides from a point, as far as bins reach; all in strides."""
    low, high = xyxy.split(2, dim=1)
    return torch.cat((point_xy - low, high - point_xy), dim=1).clamp(0, LONGEST)


def _absent(
    score: Float[Tensor, "B C A"], annotated: Bool[Tensor, "B C"] | None
) -> Float[Tensor, ""]:
    """Return the cross entropy of a batch without objects, over the classes annotated there."""
    loss = functional.softplus(score)
    if annotated is None:
        return loss.sum()
    return loss.sum(dim=2).where(annotated, 0).sum()


def _around(point_xy: Float[Tensor, "*N 2"], sides: Float[Tensor, "*M 4"]) -> Tensor:
    """Return the boxes whose sides lie that far from a point."""
    return torch.cat((point_xy - sides[..., :2], point_xy + sides[..., 2:]), dim=-1)


def _blank(logits: Logits, dtype: torch.dtype) -> Logits:
    """Return logits of the same shapes that take no memory and hold whole numbers exactly."""
    nothing = torch.zeros((), dtype=dtype, device=logits[0].score.device)
    p3, p4, p5 = (
        LevelLogits(nothing.expand(level.box.shape), nothing.expand(level.score.shape))
        for level in logits
    )
    return p3, p4, p5
