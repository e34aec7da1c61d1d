# SPDX-License-Identifier: Apache-2.0
"""Batches made ahead by worker processes, the same whatever their number.

Workers are handed tickets (`sampling.py`) and know nothing of epochs, so they run through a whole
training: nothing restarts when an epoch ends or the mosaic closes, and a training taken up in the
middle asks for its next ticket at once. Axes: B batch, H and W of the images, I images.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, TypeVar

import numpy as np
import torch
from pydantic import Field

from model.config import Settings
from model.errors import DataError
from training.augmentation import Augmentation, Sample, Sampler
from training.batches import (
    EvaluationBatch,
    Failed,
    TrainingBatch,
    as_images,
    as_rows,
)
from training.image_store import ImageFiles, ImageStore
from training.protocols import EvaluationPlan, View, look
from training.records import Split
from training.sampling import Plan, Position, Sampling, Shard, Ticket, sample_generator
from training.workers import made_ahead, made_here

B = TypeVar("B", TrainingBatch, EvaluationBatch)


class Loading(Settings):
    """Who makes batches."""

    workers: Annotated[int, Field(ge=0, le=256)] = min(os.cpu_count() or 1, 8)
    """Processes; without any, batches are made when they are asked for."""
    store_mb: Annotated[int, Field(ge=0)] = 0
    """Memory for decoded images, shared by the workers of one process."""
    pin: bool = False
    """Whether batches lie in memory that a GPU copies from by itself."""


class TrainingLoader:
    """The batches of a training."""

    def __init__(
        self,
        split: Split,
        sampling: Sampling,
        augmentation: Augmentation,
        loading: Loading,
        shard: Shard | None = None,
    ) -> None:
        """Plan a training; nothing is read yet.

        Args:
            split: The images.
            sampling: What a batch is made of.
            augmentation: What is done to them.
            loading: Who makes the batches.
            shard: Which of the processes that train together this is.
        """
        if not len(split):
            raise ValueError("a split without images cannot be trained on")
        self._plan = Plan(split, sampling, shard)
        self._make = _TrainingBatches(split, sampling, augmentation, loading.store_mb << 20)
        self._loading = loading
        self._batch_bytes = sampling.batch_size * 3 * sampling.largest_size**2
        self.steps_per_epoch = self._plan.steps_per_epoch

    def batches(self, start: Position, epochs: int) -> Iterator[TrainingBatch]:
        """Give every batch from a place in training to its end.

        Args:
            start: The first batch to give.
            epochs: How many the training has; the last ones close the mosaic.

        Raises:
            DataError: an image cannot be read any more, or a worker died.
        """
        self._make.epochs = epochs
        tickets = self._plan.tickets(start, epochs)
        return _made(self._make, tickets, self._loading, self._batch_bytes)


class EvaluationLoader:
    """Every image of a split once, in the batches of a protocol."""

    def __init__(self, split: Split, plan: EvaluationPlan, loading: Loading) -> None:
        self._split = split
        self._views = plan.views
        self._loading = loading
        self._batch_bytes = max(
            (3 * len(view.indices) * view.canvas_hw[0] * view.canvas_hw[1] for view in plan.views),
            default=0,
        )

    def __len__(self) -> int:
        return len(self._views)

    def __iter__(self) -> Iterator[EvaluationBatch]:
        make = _EvaluationBatches(self._split)
        return _made(make, self._views, self._loading, self._batch_bytes)


class _TrainingBatches:
    """Makes the batch of a ticket."""

    def __init__(
        self, split: Split, sampling: Sampling, augmentation: Augmentation, store_bytes: int
    ) -> None:
        self.epochs = 0
        self._split = split
        self._seed = sampling.seed
        self._augmentation = augmentation
        self._pictures: ImageFiles | ImageStore = ImageFiles(split.paths)
        if store_bytes:
            side = sampling.image_size
            self._pictures = ImageStore(split.paths, split.image_hw, side, store_bytes)

    def __call__(self, ticket: Ticket) -> TrainingBatch | Failed:
        try:
            samples = [
                self._sample(ticket, index, place)
                for index, place in zip(ticket.indices, ticket.places, strict=True)
            ]
        except DataError as fault:
            return Failed(str(fault))
        return TrainingBatch(
            images=as_images(np.stack([sample.pixels for sample in samples])),
            objects=as_rows(samples),
            annotated=torch.from_numpy(np.stack([sample.annotated for sample in samples])),
            paths=tuple(self._split.paths[index] for index in ticket.indices),
            epoch=ticket.position.epoch,
            step=ticket.position.step,
            last=ticket.last,
        )

    def _sample(self, ticket: Ticket, index: int, place: int) -> Sample:
        epoch = ticket.position.epoch
        augmentation = self._augmentation.at(epoch, self.epochs)
        sampler = Sampler(self._split, self._pictures, augmentation)
        return sampler.sample(index, ticket.image_size, sample_generator(self._seed, epoch, place))


class _EvaluationBatches:
    """Makes the batch of a view."""

    def __init__(self, split: Split) -> None:
        self._split = split

    def __call__(self, view: View) -> EvaluationBatch | Failed:
        paths = tuple(self._split.paths[index] for index in view.indices)
        try:
            pictures = [look(path, box) for path, box in zip(paths, view.letterboxes, strict=True)]
        except DataError as fault:
            return Failed(str(fault))
        return EvaluationBatch(
            images=as_images(np.stack(pictures)),
            indices=view.indices,
            letterboxes=view.letterboxes,
            paths=paths,
        )


def _made(
    make: Callable[[Any], B | Failed], orders: Iterable[Any], loading: Loading, batch_bytes: int
) -> Iterator[B]:
    """Have batches made in the order they are asked for."""
    if not loading.workers:
        return made_here(make, orders, pin=loading.pin)
    return made_ahead(
        make, orders, workers=loading.workers, batch_bytes=batch_bytes, pin=loading.pin
    )
