# SPDX-License-Identifier: Apache-2.0
"""A whole training: from a data.yaml and a recipe to one file of deployed weights."""

import subprocess
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from model.average_precision import require_evaluator
from model.card import Card, read_card
from model.errors import ConfigError
from model.files import remove_leftovers
from model.head import LEVELS, Branch
from model.processor import cpu_features
from model.scales import SCALES, ScaleName
from model.trained import Trained
from training.accuracy import Evaluate, accuracy
from training.album import show_batch, show_history
from training.batches import TrainingBatch
from training.board import Board
from training.checkpoints import NAME, Origin, read_checkpoint, restore
from training.criterion import Criterion
from training.datasets import Dataset, read_dataset
from training.ema import Average
from training.evaluation import Views
from training.loading import Loading, TrainingLoader
from training.loop import RESULTS, WEIGHTS, Training, fit, prepared
from training.optimiser import make_optimizer
from training.pgi import GuidedDetector
from training.progress import Reporter
from training.ranks import Ranks, joined, restarted
from training.recipe import Recipe
from training.records import Split
from training.sampling import Position
from training.schedule import Schedule, decay_factor
from training.starting import freeze, start
from training.state import TrainState
from training.subset import only

MEASURED_BATCHES: Final = 4
"""Batches that the normalisations of a fused file are measured on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What is learnt from and what is measured on."""

    name: str
    digest: str
    train: Split
    val: Split | None


def train(data: Path, recipe: Recipe, output: Path, *, resume: bool, shown: bool) -> Path | None:
    """Train and return the file of deployed weights; only the first process has one to return.

    The file is there from the first epoch that was evaluated on, with the best weights so far.

    Args:
        data: The data.yaml.
        recipe: Everything else that is to be decided.
        output: A folder for weights, checkpoint and results.
        resume: Go on from the checkpoint there, if there is one.
        shown: Whether progress is printed.
    """
    going_on = resume or restarted()
    refuse_other(output, resume=going_on)
    dataset = read_dataset(data)
    return train_on(material(dataset, recipe), recipe, output, shown=shown)


def train_on(found: Material, recipe: Recipe, output: Path, *, shown: bool) -> Path | None:
    """Train on what has been read, going on from a checkpoint in `output` if there is one."""
    if found.val is not None:
        require_evaluator()
    device = choose_device(recipe)
    with joined(device.type) as ranks:
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", ranks.local_rank)
        output.mkdir(parents=True, exist_ok=True)
        training, state = begin(found, recipe, output, device=device, ranks=ranks)
        if ranks.first:
            show_batch(output, next(batches_from_start(found.train, recipe)), found.train.classes)
        steps = training.loader.steps_per_epoch
        board = Board(output, state.rows) if recipe.tensorboard and ranks.first else None
        shown = shown and ranks.first
        with Reporter(recipe.epochs, steps, shown=shown, board=board) as reporter:
            fit(training, state, reporter)
        if not ranks.first:
            return None
        show_history(output, output / RESULTS)
        return output / WEIGHTS


def begin(
    found: Material, recipe: Recipe, output: Path, *, device: torch.device, ranks: Ranks
) -> tuple[Training, TrainState]:
    """Build everything, and take up what a checkpoint in `output` has."""
    torch.manual_seed(recipe.sampling.seed)
    guided = start(recipe.model, recipe.form, found.train.classes, measured(found.train, recipe))
    layout: Any = {"memory_format": torch.channels_last}  # which torch's types do not know
    guided.to(device, **layout)
    for module in guided.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = recipe.norm_momentum
    frozen = freeze(guided, recipe.freeze)
    loader = TrainingLoader(
        found.train, recipe.sampling, recipe.augmentation, recipe.loading, ranks.shard
    )
    images_per_batch = recipe.sampling.batch_size * ranks.world
    decay = recipe.optimiser.decay * decay_factor(recipe, images_per_batch)
    state = TrainState(
        guided=guided,
        average=Average(guided, recipe.averaging),
        optimizer=make_optimizer(guided, recipe.optimiser, decay),
    )
    origin = Origin(
        recipe=recipe,
        data_digest=found.digest,
        classes=found.train.classes,
        images_per_batch=images_per_batch,
        steps_per_epoch=loader.steps_per_epoch,
    )
    if ranks.first:
        remove_leftovers(output)
    if (output / NAME).exists():
        go_on(output / NAME, state, origin)
    network = ranks.wrap(guided, device)
    training = Training(
        recipe=recipe,
        network=torch.compile(network) if recipe.compile else network,
        alone=network.no_sync if isinstance(network, DistributedDataParallel) else nullcontext,
        frozen_norms=frozen,
        criterion=Criterion(recipe.loss, ranks.sum),
        schedule=Schedule(recipe, loader.steps_per_epoch, images_per_batch),
        loader=loader,
        device=device,
        autocast=computes_bf16(recipe, device),
        ranks=ranks,
        evaluate=evaluator(found.val, recipe),
        output=output,
        origin=origin,
        card=card_of(guided, found, recipe, output),
    )
    return training, state


def go_on(path: Path, state: TrainState, origin: Origin) -> None:
    """Take up a training where its checkpoint stands.

    With another number of processes the place in the epoch is the nearest before; the images that
    are seen are then no longer those of a training that was not interrupted.
    """
    saved = read_checkpoint(path)
    refuse_change(path, saved.origin, origin)
    restore(path, saved, state)
    if saved.origin.steps_per_epoch != origin.steps_per_epoch:
        step = saved.step * origin.steps_per_epoch // saved.origin.steps_per_epoch
        state.position = Position(epoch=saved.epoch, step=step)


def refuse_other(output: Path, *, resume: bool) -> None:
    """Refuse to write over a training that is not to be gone on with."""
    if not resume and (output / NAME).exists():
        raise ConfigError(
            f"{output}: a training is there already; go on with --resume, or give another --output"
        )


def refuse_change(path: Path, saved: Origin, origin: Origin) -> None:
    """Refuse to go on with other data or another recipe; who makes batches, and where, may differ.

    Raises:
        ConfigError: it names what differs.
    """
    if saved.data_digest != origin.data_digest or saved.classes != origin.classes:
        raise ConfigError(
            f"{path}: the data set has changed since; give back what it was, or another --output"
        )
    free = {"loading", "device", "checkpoint_minutes", "tensorboard"}
    before, after = (one.recipe.model_dump(exclude=free) for one in (saved, origin))
    differing = [name for name, value in before.items() if after[name] != value]
    if differing:
        raise ConfigError(
            f"{path}: the training was begun with another {', '.join(differing)}; "
            "give the same recipe, or another --output"
        )


def material(dataset: Dataset, recipe: Recipe) -> Material:
    """Return the splits of a data set with the classes of a recipe."""
    chosen = recipe.classes or dataset.classes
    val = dataset.splits.get("val")
    return Material(
        name=dataset.path.name if dataset.path.stem != "data" else dataset.path.parent.name,
        digest=dataset.report.digest,
        train=only(dataset["train"], chosen) if recipe.classes else dataset["train"],
        val=only(val, chosen) if val is not None and recipe.classes else val,
    )


def measured(split: Split, recipe: Recipe) -> Iterator[Tensor]:
    """Give the first batches of a training, the same in every process."""
    for batch in islice(batches_from_start(split, recipe), MEASURED_BATCHES):
        yield prepared(batch.images, torch.device("cpu"))


def batches_from_start(split: Split, recipe: Recipe) -> Iterator[TrainingBatch]:
    """Give what a training sees, made in this process."""
    loader = TrainingLoader(split, recipe.sampling, recipe.augmentation, Loading(workers=0))
    return loader.batches(Position(), recipe.epochs)


def evaluator(val: Split | None, recipe: Recipe) -> Evaluate | None:
    """Return what a training is measured with, if it has images for it."""
    if val is None:
        return None
    views = Views(
        protocol="square",
        image_size=recipe.sampling.image_size,
        batch_size=recipe.sampling.batch_size,
        loading=recipe.loading,
    )
    return partial(accuracy, split=val, views=views)


def choose_device(recipe: Recipe) -> torch.device:
    """Return the device that a recipe asks for, or say why there is none."""
    if recipe.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(recipe.device)
    except RuntimeError:
        raise ConfigError(
            f"device: expected auto, cpu, cuda or cuda:0, got {recipe.device!r}"
        ) from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: this machine has no GPU that torch can use; take auto or cpu")
    return device


def computes_bf16(recipe: Recipe, device: torch.device) -> bool:
    """Say whether the network is to compute in bf16."""
    if recipe.precision != "auto":
        return recipe.precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(cpu_features() & {"avx512_bf16", "amx_bf16", "bf16"})


def card_of(guided: GuidedDetector, found: Material, recipe: Recipe, output: Path) -> Card:
    """Return the card of a training's weights, but for what came of it.

    What it went on from is looked at now: the file may be another one when the training ends.
    """
    before = read_card(recipe.model) if isinstance(recipe.model, Path) else None
    box, score = guided.detector.head.box[LEVELS[0]], guided.detector.head.score[LEVELS[0]]
    assert isinstance(box, Branch)
    assert isinstance(score, Branch)
    return Card(
        scale=scale_of(guided),
        classes=found.train.classes,
        class_width=score.out.in_channels,
        box_groups=4 if box.out.groups == 4 else 1,
        form="training",
        image_size=recipe.sampling.image_size,
        source=output.resolve().name,
        licence=before.licence if before else "unknown",
        trained=Trained(
            data=found.name,
            data_digest=found.digest,
            recipe=_published(recipe).model_dump_json(),
            epoch=0,
            commit=commit(),
            start=before.trained if before else None,
        ),
    )


def _published(recipe: Recipe) -> Recipe:
    """Return a recipe without the folders of this machine: cards are handed on."""
    if not isinstance(recipe.model, Path):
        return recipe
    path = recipe.model.resolve()
    return recipe.model_copy(update={"model": Path(path.parent.name, path.name)})


def scale_of(guided: GuidedDetector) -> ScaleName:
    """Return the name of a detector's size."""
    return next(name for name, scale in SCALES.items() if scale == guided.detector.scale)


def commit() -> str:
    """Return the commit of this program, where it is known."""
    try:
        said = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return said.stdout.strip()
