# SPDX-License-Identifier: Apache-2.0
"""Which box found is which object: for thresholds and confusions, at an overlap of one half.

Axes: N boxes found, M objects, K classes and background.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Int

from model.boxes import area, pairwise_intersection, pairwise_iou
from model.detections import Detections
from model.released import Reliability
from training.records import Objects

MIN_IOU: Final = 0.5
TENTHS: Final = 10
Pair = tuple[Detections, Objects]
"""What was found in an image, best first, and what is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """The score from which boxes of a class are best kept: the one with the highest F1."""

    min_score: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ConfusionMatrix:
    """What objects were taken for. The last row is background, and so is the last column."""

    classes: tuple[str, ...]
    min_score: float
    counts: Int[np.ndarray, "K K"]
    """Rows are the truth, columns what was found."""


def best_threshold(pairs: Iterable[Pair], class_id: int) -> Threshold | None:
    """Return the threshold of the highest F1; None where there is no such object, or none found.

    Every box takes the object it overlaps most of those no better box has taken.
    """
    scores, right, objects = [], [], 0
    for found, there in pairs:
        of_class = found[found.class_id == class_id]
        truth = there[there.class_id == class_id]
        hit, counts = _hits(of_class, truth)
        scores.append(of_class.score[counts])
        right.append(hit[counts])
        objects += int((~truth.crowd).sum())
    score = np.concatenate([np.zeros(0), *scores])
    if not objects or not len(score):
        return None
    order = np.argsort(-score, kind="stable")
    return _highest_f1(score[order], np.concatenate(right)[order], objects)


def confusion(
    pairs: Iterable[Pair], classes: Sequence[int], names: Sequence[str], min_score: float
) -> ConfusionMatrix:
    """Count what was taken for what, each object paired with the box that overlaps it most.

    Args:
        pairs: The images.
        classes: Numbers of the classes that count, in the order of the matrix.
        names: What they are called.
        min_score: Only boxes that score above this.
    """
    background = len(classes)
    place = {class_id: number for number, class_id in enumerate(classes)}
    counts = np.zeros((background + 1, background + 1), np.int64)
    for found, there in pairs:
        sure = found[found.score > min_score]
        truth = there[~there.crowd]
        rows, columns = _one_to_one(pairwise_iou(truth.xyxy, sure.xyxy))
        for row, column in zip(rows, columns, strict=True):
            counts[place[int(truth.class_id[row])], place[int(sure.class_id[column])]] += 1
        for row in np.setdiff1d(np.arange(len(truth)), rows):
            counts[place[int(truth.class_id[row])], background] += 1
        excused = _inside(sure, there[there.crowd])
        for column in np.setdiff1d(np.flatnonzero(~excused), columns):
            counts[background, place[int(sure.class_id[column])]] += 1
    return ConfusionMatrix(classes=tuple(names), min_score=min_score, counts=counts)


def calibration(pairs: Iterable[Pair], classes: Sequence[int]) -> tuple[Reliability, ...]:
    """Return, for tenths of the score, how many boxes there are and how many of them are right.

    Args:
        pairs: The images.
        classes: Numbers of the classes that count; a box is right as that of its class only.
    """
    scores, right = [np.zeros(0)], [np.zeros(0, bool)]
    for found, there in pairs:
        for class_id in classes:
            of_class = found[found.class_id == class_id]
            hit, counts = _hits(of_class, there[there.class_id == class_id])
            scores.append(of_class.score[counts])
            right.append(hit[counts])
    score, correct = np.concatenate(scores), np.concatenate(right)
    tenth = np.minimum((score * TENTHS).astype(int), TENTHS - 1)
    return tuple(_reliability(n, score[tenth == n], correct[tenth == n]) for n in range(TENTHS))


def _reliability(
    tenth: int, score: Float[np.ndarray, " N"], right: Bool[np.ndarray, " N"]
) -> Reliability:
    return Reliability(
        above=tenth / TENTHS,
        boxes=len(score),
        score=round(float(score.mean()), 4) if len(score) else 0.0,
        precision=round(float(right.mean()), 4) if len(score) else 0.0,
    )


def _hits(
    found: Detections, truth: Objects
) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
    """Return which boxes of one class hit an object, and which count at all."""
    hit = np.zeros(len(found), bool)
    single = truth[~truth.crowd]
    overlap = pairwise_iou(found.xyxy, single.xyxy)
    for place in np.flatnonzero((overlap >= MIN_IOU).any(axis=1)):
        best = int(overlap[place].argmax())
        if overlap[place, best] >= MIN_IOU:
            hit[place] = True
            overlap[:, best] = 0
    return hit, hit | ~_inside(found, truth[truth.crowd])


def _inside(found: Detections, crowds: Objects) -> Bool[np.ndarray, " N"]:
    """Return which boxes lie in a crowd, by more than half of themselves."""
    if not len(crowds) or not len(found):
        return np.zeros(len(found), bool)
    shared = pairwise_intersection(found.xyxy, crowds.xyxy)
    return np.any(shared >= MIN_IOU * area(found.xyxy)[:, None], axis=1)


def _highest_f1(
    score: Float[np.ndarray, " N"], right: Bool[np.ndarray, " N"], objects: int
) -> Threshold:
    hits = np.cumsum(right)
    found = np.arange(1, len(score) + 1)
    last = np.append(score[1:] != score[:-1], True)  # boxes of one score are kept together
    f1 = np.where(last, 2 * hits / (found + objects), -1.0)
    best = int(f1.argmax())
    return Threshold(
        min_score=round(float(score[best]), 4),
        precision=round(float(hits[best] / found[best]), 4),
        recall=round(float(hits[best] / objects), 4),
        f1=round(float(f1[best]), 4),
    )


def _one_to_one(overlap: Float[np.ndarray, "M N"]) -> tuple[list[int], list[int]]:
    """Return pairs that overlap enough, the closest first, each object and box once."""
    rows: list[int] = []
    columns: list[int] = []
    places = np.argwhere(overlap >= MIN_IOU)
    order = np.argsort(-overlap[places[:, 0], places[:, 1]], kind="stable")
    for row, column in places[order]:
        if row not in rows and column not in columns:
            rows.append(int(row))
            columns.append(int(column))
    return rows, columns
