# SPDX-License-Identifier: Apache-2.0
"""Batches made ahead by worker processes, the same whatever their number.

Workers are handed tickets (`sampling.py`) and know nothing of epochs, so they run through a whole
training: nothing restarts when an epoch ends or the mosaic closes, and a training taken up in the
middle asks for its next ticket at once. Axes: B batch, H and W of the images, I images.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Final, TypeVar

import cv2
import numpy as np
import torch
from pydantic import Field
from torch.utils.data import DataLoader, Dataset

from model.config import Settings
from model.errors import DataError
from training.augmentation import Augmentation, Sample, Sampler
from training.batches import (
    EvaluationBatch,
    Failed,
    TrainingBatch,
    as_images,
    as_rows,
    room_for_batches,
)
from training.image_store import ImageFiles, ImageStore
from training.protocols import EvaluationPlan, View, look
from training.records import Split
from training.sampling import Plan, Position, Sampling, Shard, Ticket, sample_generator

B = TypeVar("B")
T = TypeVar("T")
AHEAD: Final = 2
"""Batches that each worker has ready."""


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
        largest = sampling.image_size * (1 + sampling.multi_scale)
        self._batch_bytes = round(sampling.batch_size * 3 * largest**2)
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
        tickets = _Endless(lambda: self._plan.tickets(start, epochs))
        yield from _made(self._make, tickets, self._loading, self._batch_bytes)


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
        yield from _made(make, self._views, self._loading, self._batch_bytes)


class _TrainingBatches(Dataset[TrainingBatch | Failed]):
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

    def __getitem__(self, ticket: Ticket) -> TrainingBatch | Failed:
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


class _EvaluationBatches(Dataset[EvaluationBatch | Failed]):
    """Makes the batch of a view."""

    def __init__(self, split: Split) -> None:
        self._split = split

    def __getitem__(self, view: View) -> EvaluationBatch | Failed:
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


class _Endless(Iterable[T]):
    """What can be gone through again from its beginning."""

    def __init__(self, begin: Callable[[], Iterator[T]]) -> None:
        self._begin = begin

    def __iter__(self) -> Iterator[T]:
        return self._begin()


def _made(
    make: Dataset[Any], orders: Iterable[Any], loading: Loading, batch_bytes: int
) -> Iterator[Any]:
    """Have batches made in the order they are asked for."""
    _refuse_without_room(loading.workers, batch_bytes)
    loader = DataLoader(
        make,
        batch_size=None,
        sampler=orders,
        num_workers=loading.workers,
        prefetch_factor=AHEAD if loading.workers else None,
        pin_memory=loading.pin,
        multiprocessing_context="fork" if loading.workers else None,
        worker_init_fn=_prepare,
        collate_fn=_unchanged,
    )
    try:
        for batch in loader:
            if isinstance(batch, Failed):
                raise DataError(batch.reason)
            yield batch
    except RuntimeError as failure:
        if "worker" not in str(failure):
            raise
        raise DataError(
            f"a process that makes batches died ({failure}); with fewer workers "
            f"(loading.workers={loading.workers}) they need less memory"
        ) from None


def _refuse_without_room(workers: int, batch_bytes: int) -> None:
    """Workers hand batches over in /dev/shm; a full one ends them without a word."""
    needed = (workers * AHEAD + 1) * batch_bytes if workers else 0
    free = room_for_batches()
    if free is not None and needed > free:
        raise DataError(
            f"/dev/shm has {free / 2**20:.0f} MB free, {workers} workers need "
            f"{needed / 2**20:.0f} MB for batches: take fewer (loading.workers), smaller batches, "
            "or a container with more (--shm-size)"
        )


def _prepare(_: int) -> None:
    # 0 runs OpenCV in the calling thread. Any other number would first have to end threads that
    # the fork has left behind in the parent, and wait for ever.
    cv2.setNumThreads(0)


def _unchanged(batch: B) -> B:
    return batch
