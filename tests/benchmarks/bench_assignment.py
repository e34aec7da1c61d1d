# SPDX-License-Identifier: Apache-2.0
"""Task-aligned assignment alone: its time, and the memory of what it computes.

    python tests/benchmarks/bench_assignment.py

Logits and objects are random. `table_mb` is what one float32 table of four distances, for every
image, as many objects as the densest image has, and every anchor point, would take: the original
training makes it, and more of its kind.
"""

import argparse
import json
import time
from typing import Any, NamedTuple

import torch
from allocations import Allocations
from objects import random_logits, random_targets
from timing import spread, surroundings

from training.assignment import AssignmentConfig, assign
from training.losses import flatten, predict


class Case(NamedTuple):
    """Images of one size, with the same number of objects in each."""

    images: int
    objects: int
    image_size: int
    mean_size: int
    """Geometric mean of the objects' sides, in pixels."""


CASES = (
    Case(16, 8, 320, 60),
    Case(16, 300, 320, 20),
    Case(16, 300, 640, 40),
    Case(1, 1000, 640, 40),
    Case(1, 1000, 640, 2000),
)
NUM_CLASSES = 80


def main() -> None:
    """Measure every case and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    cases = [_measure(case, options.runs) for case in CASES]
    result = {**surroundings(), "threads": torch.get_num_threads(), "cases": cases}
    print(json.dumps(result, indent=2))


def _measure(case: Case, runs: int) -> dict[str, Any]:
    predicted = predict(flatten(random_logits(case.images, NUM_CLASSES, case.image_size)))
    targets = random_targets(
        case.images,
        case.objects,
        image_size=case.image_size,
        num_classes=NUM_CLASSES,
        mean_size=case.mean_size,
    )
    times_ms = []
    for _ in range(runs + 1):  # the first one warms up
        began = time.perf_counter()
        assignment = assign(predicted, targets, AssignmentConfig())
        times_ms.append((time.perf_counter() - began) * 1000)
    with Allocations() as seen:
        assign(predicted, targets, AssignmentConfig())
    num_anchors = predicted.xyxy.shape[1]
    return {
        **case._asdict(),
        "positives": len(assignment.anchor),
        "assign_ms": spread(times_ms[1:]),
        "peak_mb": round(seen.peak_bytes / 1e6, 2),
        "largest_mb": round(seen.largest_bytes / 1e6, 2),
        "table_mb": round(case.images * case.objects * num_anchors * 4 * 4 / 1e6, 1),
    }


if __name__ == "__main__":
    main()
