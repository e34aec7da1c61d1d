# SPDX-License-Identifier: Apache-2.0
"""START of training: batches in, updates of the weights, an epoch's results out.

    fit -> train_step for each update -> at an epoch's end: evaluate, write down, stop or go on

An update is made of as many batches as the schedule says; the last one of an epoch takes what is
left, so that an epoch ends between two updates and every image counts. The loop draws no random
number and keeps nothing to itself: what it does follows from the state and the recipe.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from model.card import Card
from model.reparam import fuse
from model.weights import save_weights
from training.accuracy import Evaluate
from training.batches import TrainingBatch
from training.checkpoints import NAME, Origin, save_checkpoint
from training.criterion import Criterion, Losses
from training.errors import TrainingFailed
from training.loading import TrainingLoader
from training.optimiser import set_rates
from training.pgi import GuidedLogits
from training.progress import Reporter, write_results
from training.ranks import Ranks
from training.recipe import Recipe
from training.schedule import Rates, Schedule
from training.state import Row, Sums, TrainState
from training.targets import Targets
from training.weights import save_guided

BEST: Final = "best.safetensors"
WEIGHTS: Final = "weights.safetensors"
RESULTS: Final = "results.csv"


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """What does not change while a training runs."""

    recipe: Recipe
    network: Callable[[Tensor], GuidedLogits]
    """The state's detector as it is called: compiled, or one of several that train together."""
    alone: Callable[[], AbstractContextManager[None]]
    """Inside it gradients stay in this process."""
    frozen_norms: Sequence[nn.Module]
    criterion: Criterion
    schedule: Schedule
    loader: TrainingLoader
    device: torch.device
    autocast: bool
    """Whether the network computes in bf16."""
    ranks: Ranks
    evaluate: Evaluate | None
    output: Path
    origin: Origin
    card: Card
    """Of the weights that are kept."""


def fit(training: Training, state: TrainState, reporter: Reporter) -> None:
    """Train to the end of the recipe, or until patience is."""
    if training.ranks.agree(out_of_patience(state, training.recipe)):
        return
    batches = training.loader.batches(state.position, training.recipe.epochs)
    saved_s = time.monotonic()
    for group in grouped(batches, training.schedule):
        train_step(training, state, group)
        reporter.step(group[-1].epoch, group[-1].step + 1, state.sums)
        if group[-1].last:
            end_epoch(training, state, reporter)
        elif time.monotonic() - saved_s < training.recipe.checkpoint_minutes * 60:
            continue
        _save(training, state, reporter)
        saved_s = time.monotonic()
        if group[-1].last and training.ranks.agree(out_of_patience(state, training.recipe)):
            reporter.say(f"no better AP for {training.recipe.patience} epochs: the end")
            return


def grouped(batches: Iterable[TrainingBatch], schedule: Schedule) -> Iterator[list[TrainingBatch]]:
    """Give the batches of one update after the other."""
    group: list[TrainingBatch] = []
    for batch in batches:
        group.append(batch)
        if batch.last or len(group) >= schedule.at(batch.epoch, batch.step).accumulate:
            yield group
            group = []


def train_step(training: Training, state: TrainState, batches: Sequence[TrainingBatch]) -> None:
    """Make one update of the weights."""
    began = time.perf_counter()
    state.guided.train()
    for norm in training.frozen_norms:
        norm.eval()
    losses = [learn(training, batch, synchronise=batch is batches[-1]) for batch in batches]
    length = nn.utils.clip_grad_norm_(state.guided.parameters(), training.recipe.max_grad_norm)
    last = batches[-1]
    if not length.isfinite():
        raise _diverged(training, losses, batches)
    set_rates(state.optimizer, training.schedule.at(last.epoch, last.step))
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.average.update(state.guided)
    share = (time.perf_counter() - began) / len(losses)
    for one in losses:
        state.sums = state.sums.plus(one, share)
    state.position = last.following


def learn(training: Training, batch: TrainingBatch, *, synchronise: bool) -> Losses:
    """Add the gradients of one batch to those that are there."""
    device = training.device
    images = prepared(batch.images, device)
    targets = targets_of(batch).to(device)
    with nullcontext() if synchronise else training.alone():
        with torch.autocast(device.type, torch.bfloat16, enabled=training.autocast):
            logits = training.network(images)
        losses = training.criterion(logits, targets)
        losses.total.backward()
    return losses


def end_epoch(training: Training, state: TrainState, reporter: Reporter) -> None:
    """Sum an epoch up, evaluate it, and keep the weights if they are the best."""
    epoch = state.position.epoch - 1
    sums, state.sums = state.sums, Sums()
    box, score, distribution = _joint(training, sums)
    began = time.perf_counter()
    found = _evaluated(training, state, epoch)
    row = Row(
        epoch=epoch,
        box=box,
        score=score,
        distribution=distribution,
        ap=found.get("ap"),
        ap50=found.get("ap50"),
        lr=_rates(training, epoch).lr,
        images_per_s=sums.images / max(sums.seconds, 1e-9),
        seconds=sums.seconds + time.perf_counter() - began,
    )
    state.rows.append(row)
    if not training.ranks.first:
        return
    if state.best is row:
        _keep(training, state, row)
    write_results(training.output / RESULTS, state.rows)
    reporter.epoch(state.rows)


def out_of_patience(state: TrainState, recipe: Recipe) -> bool:
    """Say whether there has been no better AP for too long."""
    return state.epochs_without_better >= recipe.patience


def prepared(images: Tensor, device: torch.device) -> Tensor:
    """Return a loader's images as the network takes them: 0 to 1, channels last."""
    moved = images.to(device, non_blocking=True).float() / 255
    return moved.contiguous(memory_format=torch.channels_last)


def targets_of(batch: TrainingBatch) -> Targets:
    """Return the objects of a batch as the criterion takes them."""
    return Targets(
        image=batch.objects[:, 0].long(),
        class_id=batch.objects[:, 1].long(),
        xyxy=batch.objects[:, 2:].contiguous(),
        annotated=batch.annotated,
    )


def _joint(training: Training, sums: Sums) -> tuple[float, float, float]:
    """Return the mean losses of an epoch, those of all processes together."""
    mine = torch.tensor([sums.box, sums.score, sums.distribution, sums.images])
    mine = mine.double() if training.device.type == "cpu" else mine.to(training.device)
    box, score, distribution, images = training.ranks.sum(mine).tolist()
    return box / images, score / images, distribution / images


def _evaluated(training: Training, state: TrainState, epoch: int) -> dict[str, float]:
    recipe = training.recipe
    due = (epoch + 1) % recipe.evaluate_every == 0 or epoch + 1 == recipe.epochs
    if training.evaluate is None or not training.ranks.first or not due:
        return {}
    return training.evaluate(fuse(state.average.guided.detector))


def _keep(training: Training, state: TrainState, best: Row) -> None:
    """Write the best averaged weights so far: whole, and their main branch fused to be run."""
    guided, card = state.average.guided, training.card
    save_guided(training.output / BEST, guided, card)
    assert card.trained is not None
    trained = card.trained.model_copy(
        update={"epoch": best.epoch, "ap": best.ap, "ap50": best.ap50}
    )
    deployed = card.model_copy(update={"form": "fused", "trained": trained})
    save_weights(training.output / WEIGHTS, fuse(guided.detector), deployed)


def _save(training: Training, state: TrainState, reporter: Reporter) -> None:
    """Write a checkpoint; a full disk is said and costs nothing but this one."""
    if not training.ranks.first:
        return
    path = training.output / NAME
    try:
        save_checkpoint(path, state, training.origin)
    except OSError as failure:
        kept = "the former one is kept" if path.exists() else "there is none yet"
        reporter.say(f"{path}: checkpoint not written: {failure.strerror}; {kept}; make room")


def _rates(training: Training, epoch: int) -> Rates:
    return training.schedule.at(epoch, training.loader.steps_per_epoch - 1)


def _diverged(
    training: Training, losses: Sequence[Losses], batches: Sequence[TrainingBatch]
) -> TrainingFailed:
    wrong = [
        batch
        for batch, one in zip(batches, losses, strict=True)
        if not one.total.detach().isfinite()
    ] or list(batches)
    names = ", ".join(path for batch in wrong for path in batch.paths)
    what = "loss" if len(wrong) < len(batches) or not losses[0].total.isfinite() else "gradient"
    last = batches[-1]
    optimiser = training.recipe.optimiser
    return TrainingFailed(
        f"epoch {last.epoch + 1}, step {last.step + 1}: the {what} is not a finite number; "
        f"images: {names}; {training.output / NAME} has the weights from before, if there is one; "
        f"try --set optimiser.lr={optimiser.lr / 4:g}, a longer warm_up.epochs, or precision=f32"
    )
