# SPDX-License-Identifier: Apache-2.0
"""Task-aligned assignment: which anchor points learn from which object, and how strongly.

An object's candidates are the anchor points inside it where the detector already does best at
both tasks at once: the score of the object's class, and the overlap of the predicted box (TOOD,
arXiv 2108.07755). Only pairs of an object and an anchor point inside it are ever looked at, a
bounded number at a time, so memory follows what is present.

Axes: B images, C classes, A anchor points of all levels, N objects of all images, P positives.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Float32, Int64
from pydantic import Field
from torch import Tensor

from model.config import Settings
from training.overlap import complete_iou
from training.targets import Targets

PAIRS: Final = 2**15
"""Pairs of an object and an anchor point looked at together."""
EPSILON: Final = 1e-9
NOTHING: Final = -1


class AssignmentConfig(Settings):
    """How anchor points are given to objects."""

    candidates: Annotated[int, Field(ge=1)] = 10
    """Most anchor points an object gets."""
    score_power: Annotated[float, Field(ge=0)] = 0.5
    """Weight of the score in the alignment of both tasks, as an exponent."""
    overlap_power: Annotated[float, Field(ge=0)] = 6.0
    """Weight of the overlap in it."""
    conflicts: Literal["claimants", "everyone"] = "claimants"
    """Which objects an anchor point that several have as a candidate may go to.

    The one among them that its box overlaps most; or, as in the published training, the one of
    the image's objects that it overlaps most, even where its centre lies outside that one.
    """


class GridLevel(NamedTuple):
    """The anchor points of one level, row by row."""

    stride: int
    height: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predicted:
    """What one head says of B images, without gradient."""

    levels: tuple[GridLevel, ...]
    xyxy: Float32[Tensor, "B A 4"]
    """In pixels of the network's input."""
    score_logits: Float[Tensor, "B C A"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Assignment:
    """P positives, by image and then anchor point; all other anchor points are background."""

    image: Int64[Tensor, " P"]
    anchor: Int64[Tensor, " P"]
    object_id: Int64[Tensor, " P"]
    """Row in the targets."""
    score: Float32[Tensor, " P"]
    """What the object's class should score there; the best anchor point's is its overlap."""


class Pairs(NamedTuple):
    """Objects and anchor points of their images; the shapes broadcast."""

    object_id: Int64[Tensor, "*N"]
    anchor: Int64[Tensor, "*M"]


@torch.no_grad()
def assign(predicted: Predicted, targets: Targets, config: AssignmentConfig) -> Assignment:
    """Give each object up to `config.candidates` anchor points among those inside it.

    An object without an anchor point inside gets none. Neither the order of the objects nor what
    else is in the batch changes what an image gets.

    Args:
        predicted: What a head says of the batch.
        targets: Its objects, each of an image and a class that the head knows.
        config: How to choose.
    """
    matching = _Matching(predicted, targets, config)
    claims = _candidates(matching)
    owner = _strongest(matching, claims)
    if config.conflicts == "everyone":
        _reopen_conflicts(matching, claims, owner)
    (cells,) = (owner != NOTHING).nonzero(as_tuple=True)
    won = Pairs(owner[cells], cells % matching.num_anchors)
    return Assignment(
        image=cells // matching.num_anchors,
        anchor=won.anchor,
        object_id=won.object_id,
        score=_target_scores(matching, won),
    )


@dataclass(frozen=True, slots=True)
class _Matching:
    """How well objects and anchor points go together."""

    predicted: Predicted
    targets: Targets
    config: AssignmentConfig

    @property
    def num_anchors(self) -> int:
        return self.predicted.xyxy.shape[1]

    def cell(self, pairs: Pairs) -> Int64[Tensor, "*N"]:
        """Return the place of each anchor point among those of all images."""
        return self.targets.image[pairs.object_id] * self.num_anchors + pairs.anchor

    def overlap(self, pairs: Pairs) -> Float32[Tensor, "*N"]:
        cell = self.cell(pairs)
        boxes = self.predicted.xyxy.flatten(0, 1).index_select(0, cell.flatten())
        wanted = self.targets.xyxy[pairs.object_id]
        return complete_iou(wanted, boxes.reshape(*cell.shape, 4)).clamp(min=0)

    def aligned(self, pairs: Pairs, overlap: Float32[Tensor, "*N"]) -> Float32[Tensor, "*N"]:
        """Join the overlap and the score of the object's class to one measure."""
        row = self.targets.image * self.predicted.score_logits.shape[1] + self.targets.class_id
        place = row[pairs.object_id] * self.num_anchors + pairs.anchor
        score = self.predicted.score_logits.take(place).float().sigmoid()
        return score**self.config.score_power * overlap**self.config.overlap_power


def _candidates(matching: _Matching) -> Pairs:
    """Return the best aligned pairs of each object; of equal ones, the earlier anchor points."""
    most = matching.config.candidates
    levels = matching.predicted.levels
    keys = matching.targets.image.new_full((len(matching.targets), len(levels), most), NOTHING)
    first_anchor = 0
    for place, level in enumerate(levels):
        for objects, cells, inside in _inside(level, matching.targets.xyxy):
            pairs = Pairs(objects[:, None], first_anchor + cells)
            aligned = matching.aligned(pairs, matching.overlap(pairs))
            key = (_bits(aligned) << 32) + (matching.num_anchors - pairs.anchor)
            best = key.where(inside, NOTHING).topk(min(most, key.shape[1])).values
            keys[objects, place, : best.shape[1]] = best
        first_anchor += level.height * level.width
    chosen = keys.flatten(1).topk(most).values
    objects, rank = (chosen != NOTHING).nonzero(as_tuple=True)
    return Pairs(objects, matching.num_anchors - (chosen[objects, rank] & 0xFFFFFFFF))


def _inside(
    level: GridLevel, xyxy: Float32[Tensor, "N 4"]
) -> Iterator[tuple[Int64[Tensor, " n"], Int64[Tensor, "n k"], Bool[Tensor, "n k"]]]:
    """Yield objects, cells of one level, and which of these have their centre inside the object.

    Objects with about as many cells come together, so that few places of a table are wasted.
    """
    low = (xyxy[:, :2].double() / level.stride + 0.5).floor().clamp(min=0).long()
    high = (xyxy[:, 2:].double() / level.stride - 0.5).ceil().long()
    columns = (high[:, 0].clamp(max=level.width) - low[:, 0]).clamp(min=0)
    rows = (high[:, 1].clamp(max=level.height) - low[:, 1]).clamp(min=0)
    counts, order = (columns * rows).sort()
    for start, end, most in _tables(counts.tolist()):
        objects = order[start:end]
        width = columns[objects, None]
        cell = torch.arange(most, device=xyxy.device)
        inside = cell < counts[start:end, None]
        row = low[objects, 1:] + cell // width
        cells = row * level.width + low[objects, :1] + cell % width
        yield objects, cells.where(inside, 0), inside


def _tables(counts: list[int]) -> Iterator[tuple[int, int, int]]:
    """Cut rising counts into tables: first and last row, and width. Those of 0 are left out.

    A table has at most `PAIRS` places, or one row.
    """
    start = counts.count(0)
    for end in range(start + 1, len(counts) + 1):
        if end == len(counts) or (end + 1 - start) * counts[end] > PAIRS:
            yield start, end, counts[end - 1]
            start = end


def _strongest(matching: _Matching, claims: Pairs) -> Int64[Tensor, " cells"]:
    """Return the object that each anchor point of each image goes to, or `NOTHING`.

    It is the claimant with the largest overlap. Where two are equal, as those of the same box
    are, the better aligned one has it, then the smaller class, then the earlier row.
    """
    overlap = matching.overlap(claims)
    strength = (_bits(overlap) << 31) + _bits(matching.aligned(claims, overlap))
    num_objects = len(matching.targets)
    rank = matching.targets.class_id[claims.object_id] * num_objects + claims.object_id
    cell = matching.cell(claims)
    nobody = cell.new_full((matching.predicted.xyxy.shape[:2].numel(),), NOTHING)
    wins = strength == nobody.scatter_reduce(0, cell, strength, "amax")[cell]
    first = nobody.scatter_reduce(0, cell[wins], rank[wins], "amin", include_self=False)
    return first.where(first == NOTHING, first % max(num_objects, 1))


def _reopen_conflicts(matching: _Matching, claims: Pairs, owner: Int64[Tensor, " cells"]) -> None:
    """Give anchor points with several claimants to any object of their image."""
    claimants = torch.bincount(matching.cell(claims), minlength=len(owner))
    contested = (claimants > 1).reshape(-1, matching.num_anchors)
    for image in contested.any(dim=1).nonzero()[:, 0].tolist():
        (objects,) = (matching.targets.image == image).nonzero(as_tuple=True)
        (anchors,) = contested[image].nonzero(as_tuple=True)
        for some in anchors.split(max(PAIRS // len(objects), 1)):
            overlap = matching.overlap(Pairs(objects[:, None], some))
            owner[image * matching.num_anchors + some] = objects[overlap.argmax(dim=0)]


def _target_scores(matching: _Matching, won: Pairs) -> Float32[Tensor, " P"]:
    """Scale each object's alignments so that its best one becomes its best overlap."""
    overlap = matching.overlap(won)
    aligned = matching.aligned(won, overlap)
    nothing = overlap.new_zeros(len(matching.targets))
    best_overlap = nothing.scatter_reduce(0, won.object_id, overlap, "amax")[won.object_id]
    best_aligned = nothing.scatter_reduce(0, won.object_id, aligned, "amax")[won.object_id]
    return aligned * best_overlap / (best_aligned + EPSILON)


def _bits(number: Float32[Tensor, "*N"]) -> Int64[Tensor, "*N"]:
    """Return whole numbers that are ordered as these numbers are, none of which is negative."""
    return number.abs().contiguous().view(torch.int32).long()
