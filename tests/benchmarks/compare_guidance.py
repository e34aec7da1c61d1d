# SPDX-License-Identifier: Apache-2.0
"""What auxiliary branches give: GELAN alone, deep supervision and PGI, from random weights.

    python tests/benchmarks/compare_guidance.py OUTPUT --data ../shared/street/data.yaml

Every form sees the same images in the same order, for each seed, and is measured by its averaged
weights after the last epoch, on the split `val`; what is deployed has the same parameters in all.
Trainings are kept in OUTPUT, seed by seed, and gone on with when the program is called again. At
the end it prints one JSON object and draws OUTPUT/guidance.png.

The evidence about gradients is taken on the same few batches for every form, in float32, before
training and after it, for each part of the backbone that all forms share: the share of its
gradient's length that the branches give, how far their gradient and the main head's point the same
way, and how far gradients of different batches do (cosines; of everything, and of the main head
alone).
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path
from statistics import fmean
from typing import Any, get_args

import matplotlib as mpl
import torch
from timing import surroundings
from torch import Tensor

from model.config import load_settings
from training.auxiliary import FormName
from training.batches import TrainingBatch
from training.checkpoints import NAME, read_checkpoint
from training.criterion import Criterion
from training.datasets import read_dataset
from training.job import Material, batches_from_start, begin, material, train_on
from training.loop import prepared, targets_of
from training.pgi import GuidedDetector, GuidedLogits
from training.ranks import Ranks
from training.recipe import Recipe
from training.state import Row

TITLES: dict[FormName, str] = {
    "none": "GELAN alone",
    "pfh": "deep supervision (PFH)",
    "fpn": "PGI as released (FPN)",
    "icn": "PGI (ICN)",
}
RECIPE = Path(__file__).parents[2] / "configs" / "training" / "street-small.yaml"
BATCHES = 6
"""For the evidence about gradients."""


@dataclass(frozen=True)
class Run:
    """One training."""

    form: FormName
    seed: int
    folder: Path


def recipe(options: argparse.Namespace, run: Run) -> Recipe:
    """Return the first stage of the default weights, with another form and seed."""
    wanted = {
        "form": run.form,
        "epochs": options.epochs,
        "sampling.seed": run.seed,
        "sampling.image_size": options.image_size,
    }
    return load_settings(Recipe, RECIPE, [f"{name}={value}" for name, value in wanted.items()])


def main() -> None:
    """Train what is not trained yet, then compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--forms", nargs="+", choices=get_args(FormName), default=["fpn", "none", "pfh"]
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--image-size", type=int, default=256)
    options = parser.parse_args()
    runs = [
        Run(form, seed, options.output / f"{form}-{seed}")
        for seed in options.seeds
        for form in options.forms
    ]
    dataset = read_dataset(options.data)
    for run in runs:
        asked = recipe(options, run)
        train_on(material(dataset, asked), asked, run.folder, shown=True)
    found = material(dataset, recipe(options, runs[0]))
    result = {
        **surroundings(),
        "data": found.name,
        "epochs": options.epochs,
        "image_size": options.image_size,
        "images_seen": options.epochs * len(found.train),
        "forms": {form: compared(found, runs, form, options) for form in options.forms},
    }
    draw(options.output / "guidance.png", runs)
    print(json.dumps(result, indent=2))


def compared(
    found: Material, runs: Sequence[Run], form: FormName, options: argparse.Namespace
) -> dict[str, Any]:
    """Return what one form came to, a list entry for each seed."""
    mine = [run for run in runs if run.form == form]
    last = [rows_of(run)[-1] for run in mine]
    return {
        "title": TITLES.get(form, form),
        "parameters_deployed": _deployed(found, recipe(options, mine[0])),
        "ap": [row.ap for row in last],
        "ap50": [row.ap50 for row in last],
        "losses": [row.model_dump(include={"box", "score", "distribution"}) for row in last],
        "gradients_before": evidence(found, recipe(options, mine[0]), None),
        "gradients_after": evidence(found, recipe(options, mine[0]), mine[0].folder),
    }


def rows_of(run: Run) -> tuple[Row, ...]:
    """Return the epochs of a training."""
    return read_checkpoint(run.folder / NAME).rows


def evidence(found: Material, asked: Recipe, trained: Path | None) -> dict[str, Any]:
    """Return what gradients are like in each part of the backbone; of random weights first."""
    guided = restored(found, asked, trained)
    criterion = Criterion(asked.loss)
    batches = list(islice(batches_from_start(found.train, asked), BATCHES))
    whole = [gradients(guided, criterion, batch, main_alone=False) for batch in batches]
    main = [gradients(guided, criterion, batch, main_alone=True) for batch in batches]
    return {
        part: {
            "branches_share": fmean(
                float((all_[part] - own[part]).norm() / all_[part].norm())
                for all_, own in zip(whole, main, strict=True)
            ),
            "branches_and_main": fmean(
                cosine(all_[part] - own[part], own[part])
                for all_, own in zip(whole, main, strict=True)
            )
            if guided.auxiliary
            else None,
            "batches_agree": agreement([one[part] for one in whole]),
            "batches_agree_main": agreement([one[part] for one in main]),
        }
        for part in whole[0]
    }


def restored(found: Material, asked: Recipe, trained: Path | None) -> GuidedDetector:
    """Return a detector in training: as it begins, or as a checkpoint has it."""
    with tempfile.TemporaryDirectory() as empty:
        folder = trained or Path(empty)
        _, state = begin(found, asked, folder, device=torch.device("cpu"), ranks=Ranks())
    return state.guided


def gradients(
    guided: GuidedDetector, criterion: Criterion, batch: TrainingBatch, *, main_alone: bool
) -> dict[str, Tensor]:
    """Return the gradient of one batch's loss in each part of the backbone, as a vector."""
    guided.train().zero_grad()
    logits = guided(prepared(batch.images, torch.device("cpu")))
    if main_alone:
        logits = GuidedLogits(main=logits.main, auxiliary=())
    criterion(logits, targets_of(batch)).total.backward()
    return {
        name: torch.cat([weight.grad.flatten() for weight in part.parameters()])
        for name, part in guided.detector.backbone.named_children()
    }


def agreement(gradients: Sequence[Tensor]) -> float:
    """Return the mean cosine between gradients of different batches."""
    return fmean(cosine(one, other) for one, other in combinations(gradients, 2))


def cosine(one: Tensor, other: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(one, other, dim=0))


def draw(path: Path, runs: Sequence[Run]) -> None:
    """Draw AP and the main losses' sum over the epochs, a line for each training."""
    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for run in runs:
        rows = rows_of(run)
        epochs = [row.epoch + 1 for row in rows]
        style = {"color": f"C{list(TITLES).index(run.form)}", "alpha": 1 - 0.4 * (run.seed % 2)}
        label = f"{TITLES[run.form]}, seed {run.seed}"
        left.plot(epochs, list(losses(rows, run)), label=label, **style)
        right.plot(epochs, [row.ap for row in rows], label=label, **style)
    left.set(xlabel="epoch", ylabel="loss, all heads, a unit of weight each")
    right.set(xlabel="epoch", ylabel="AP on val", ylim=(0, None))
    right.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def losses(rows: Sequence[Row], run: Run) -> Iterator[float]:
    """Give the loss of each epoch, divided by the weight of its heads."""
    weight = 1 + (0 if run.form == "none" else 0.25)
    for row in rows:
        yield (row.box + row.score + row.distribution) / weight


def _deployed(found: Material, asked: Recipe) -> int:
    guided = restored(found, asked, None)
    return sum(weight.numel() for weight in guided.detector.parameters())


if __name__ == "__main__":
    main()
