# SPDX-License-Identifier: Apache-2.0
"""Whether training learns: size T from random weights on 128 photographs, measured on themselves.

    SIGHTLINE_DATA=../shared python tests/benchmarks/overfit.py OUTPUT --minutes 60

320 pixels, no augmentation, boxes of 16 pixels and more on that canvas; the aim is an AP50 of .8
within an hour of CPU time. It stops when its minutes are spent, and goes on from there when it is
called again; the minutes of all calls count.
"""

import argparse
import json
import os
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from training.augmentation import NO_AUGMENTATION
from training.datasets import read_dataset
from training.job import Material, begin
from training.loading import Loading
from training.loop import fit
from training.progress import Reporter
from training.ranks import Ranks
from training.recipe import AdamW, Averaging, Recipe, WarmUp
from training.records import Record, Split
from training.sampling import Sampling

SIDE = 320
LEAST_PX = 16


def recipe(epochs: int) -> Recipe:
    """Return rates for a training of minutes."""
    return Recipe(
        epochs=epochs,
        sampling=Sampling(batch_size=16, image_size=SIDE),
        augmentation=NO_AUGMENTATION,
        loading=Loading(workers=0, store_mb=256),
        optimiser=AdamW(lr=0.002, decay=0.01),
        warm_up=WarmUp(epochs=3, min_batches=0),
        averaging=Averaging(decay=0.98, ramp=100),
        nominal_batch=16,
        norm_momentum=0.1,
        device="cpu",
        evaluate_every=10,
        checkpoint_minutes=2,
    )


def large_objects(split: Split) -> Split:
    """Return a split without the boxes that are too small on the canvas."""
    return Split("train", split.classes, [_large(split[index]) for index in range(len(split))])


def _large(record: Record) -> Record:
    sides = record.objects.xyxy[:, 2:] - record.objects.xyxy[:, :2]
    shrunk = sides * (SIDE / max(record.image_hw))
    return replace(record, objects=record.objects[(shrunk >= LEAST_PX).all(axis=1)])


class Spent(Exception):  # noqa: N818 - it says what happened
    """The minutes are over."""


class Watch(Reporter):
    """Ends a training when its CPU time, that of all calls, is spent."""

    def __init__(self, epochs: int, steps_per_epoch: int, *, minutes: float, account: Path) -> None:
        super().__init__(epochs, steps_per_epoch, shown=True)
        self._minutes = minutes
        self._account = account
        self._before = float(account.read_text()) if account.exists() else 0.0

    @property
    def spent(self) -> float:
        """CPU minutes so far."""
        return self._before + time.process_time() / 60

    def epoch(self, rows: list) -> None:  # type: ignore[type-arg]
        super().epoch(rows)
        self._account.write_text(f"{self.spent}\n")
        if self.spent > self._minutes:
            raise Spent


def main() -> None:
    """Train for so many minutes of CPU time and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--epochs", type=int, default=150)
    options = parser.parse_args()
    root = Path(os.environ.get("SIGHTLINE_DATA", "../shared")) / "coco128"
    dataset = read_dataset(root / "data.yaml")
    split = large_objects(dataset["val"])
    found = Material(name="coco128", digest=dataset.report.digest, train=split, val=split)
    options.output.mkdir(parents=True, exist_ok=True)
    training, state = begin(
        found, recipe(options.epochs), options.output, device=torch.device("cpu"), ranks=Ranks()
    )
    steps, account = training.loader.steps_per_epoch, options.output / "cpu_minutes.txt"
    watch = Watch(options.epochs, steps, minutes=options.minutes, account=account)
    with suppress(Spent), watch:
        fit(training, state, watch)
    best = state.best
    print(
        json.dumps(
            {
                "epochs": len(state.rows),
                "cpu_minutes": round(watch.spent, 2),
                "ap50": best.ap50 if best else None,
                "first_losses": state.rows[0].model_dump(include={"box", "score", "distribution"}),
                "last_losses": state.rows[-1].model_dump(include={"box", "score", "distribution"}),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
