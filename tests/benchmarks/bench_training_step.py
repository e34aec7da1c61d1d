# SPDX-License-Identifier: Apache-2.0
"""A training step: images a second, and what each of its parts takes.

    python tests/benchmarks/bench_training_step.py --scale T --precisions f32 bf16

The published auxiliary branch is beside the detector. Images are noise and objects random: a
step's cost does not depend on what it sees. bf16 is autocast with channels last. Precisions are
run in turn, a step each; `assignment` is a part of `loss`, measured by itself on the same logits.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any, get_args

import torch
from objects import random_targets
from timing import spread, surroundings

from model.network import Detector
from model.scales import SCALES, ScaleName
from training.assignment import assign
from training.auxiliary import FORMS, RELEASED
from training.criterion import Criterion, LossConfig
from training.losses import flatten, predict
from training.pgi import GuidedDetector, GuidedLogits
from training.targets import Targets

NUM_CLASSES = 80
OBJECTS = 8
"""In each image, about as many as in COCO."""


@dataclass
class Clock:
    """Milliseconds of each part, one entry a step."""

    parts_ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.parts_ms[name].append((time.perf_counter() - began) * 1000)


class Side:
    """A detector in training at one precision."""

    def __init__(self, precision: str, options: argparse.Namespace) -> None:
        torch.manual_seed(0)
        scale: ScaleName = options.scale
        detector = Detector(SCALES[scale], NUM_CLASSES)
        self.half = precision == "bf16"
        layout = torch.channels_last if self.half else torch.contiguous_format
        form = options.form or RELEASED[scale]
        self.guided = GuidedDetector(detector, form).to(memory_format=layout)
        shape = (options.batch, 3, options.image_size, options.image_size)
        self.images = torch.rand(shape).to(memory_format=layout)
        self.optimizer = torch.optim.SGD(
            self.guided.parameters(), lr=1e-4, momentum=0.937, nesterov=True
        )
        self.criterion = Criterion(LossConfig())
        self.clock = Clock()

    def step(self, targets: Targets) -> None:
        """Make one update."""
        part = self.clock.part
        with part("step"):
            with part("forward"), torch.autocast("cpu", torch.bfloat16, enabled=self.half):
                logits = self.guided(self.images)
            with part("loss"):
                losses = self.criterion(logits, targets)
            with part("backward"):
                losses.total.backward()
            with part("update"):
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
        self._assign(logits, targets)

    def _assign(self, logits: GuidedLogits, targets: Targets) -> None:
        heads = [flatten(head) for head in (logits.main, *logits.auxiliary)]
        with self.clock.part("assignment"):
            for head in heads:
                assign(predict(head), targets, self.criterion.config.assignment)


def main() -> None:
    """Measure the precisions in turn and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", choices=get_args(ScaleName), default="T")
    parser.add_argument("--form", choices=FORMS, help="the published one if not given")
    parser.add_argument("--image-size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--precisions", nargs="+", choices=("f32", "bf16"), default=("f32", "bf16"))
    options = parser.parse_args()
    targets = random_targets(
        options.batch,
        OBJECTS,
        image_size=options.image_size,
        num_classes=NUM_CLASSES,
        mean_size=options.image_size / 5,
    )
    sides = {precision: Side(precision, options) for precision in options.precisions}
    for run in range(options.runs + 1):
        for side in sides.values():
            side.step(targets)
            if run == 0:  # it warms up
                side.clock.parts_ms.clear()
    result = {
        **surroundings(),
        "threads": torch.get_num_threads(),
        "scale": options.scale,
        "form": options.form or RELEASED[options.scale],
        "image_size": options.image_size,
        "batch": options.batch,
        "sides": {name: _summed_up(side, options.batch) for name, side in sides.items()},
    }
    print(json.dumps(result, indent=2))


def _summed_up(side: Side, batch: int) -> dict[str, Any]:
    parts = side.clock.parts_ms
    whole = median(parts["step"])
    return {
        "images_per_s": spread([batch * 1000 / step for step in parts["step"]]),
        "share": {
            name: round(median(times) / whole, 4) for name, times in parts.items() if name != "step"
        },
        "ms": {name: spread(times) for name, times in parts.items()},
    }


if __name__ == "__main__":
    main()
