# SPDX-License-Identifier: Apache-2.0
"""Which images make which batch: everything random about it follows from seed, epoch and place.

An epoch is an order of images, cut into steps of `batch_size` images for every process. The last
step is filled up from the beginning of the order, so that every batch is whole and no process
waits for another. Who asks for a later epoch or step gets it without those before.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field

from model.config import Settings
from training.records import Split

STRIDE: Final = 32
_ORDER, _SIZE, _SAMPLE = 0, 1, 2


class Sampling(Settings):
    """What a training batch is made of."""

    batch_size: Annotated[int, Field(ge=1)] = 16
    """Images of one process."""
    image_size: Annotated[int, Field(ge=32, le=4096, multiple_of=STRIDE)] = 640
    """Side of the square that is trained on, in pixels."""
    multi_scale: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """By what share of it a batch may be smaller or larger, in whole strides; .5 is usual."""
    balance: Literal["images", "classes"] = "images"
    """Every image once an epoch, or those with rare classes more often than those without."""
    seed: Annotated[int, Field(ge=0)] = 0

    @property
    def largest_size(self) -> int:
        """Side of the largest batch."""
        return STRIDE * round(self.image_size * (1 + self.multi_scale) / STRIDE)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Position:
    """A place in training: the next batch to come."""

    epoch: int = 0
    step: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Which process this is among those that train together."""

    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank must be 0 to {self.world - 1}, got {self.rank}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """One batch to be made: small, and all that a worker needs to know."""

    position: Position
    indices: tuple[int, ...]
    places: tuple[int, ...]
    """Of each sample in its epoch; two samples of one image differ by it."""
    image_size: int
    last: bool
    """Whether the epoch ends with it."""


class Plan:
    """Every ticket of a training."""

    def __init__(self, split: Split, sampling: Sampling, shard: Shard | None = None) -> None:
        self._sampling = sampling
        self._shard = shard or Shard()
        self._count = len(split)
        self._weights = class_weights(split) if sampling.balance == "classes" else None
        together = sampling.batch_size * self._shard.world
        self.steps_per_epoch = -(-len(split) // together)

    def tickets(self, start: Position, epochs: int) -> Iterator[Ticket]:
        """Give one ticket after the other, from a place in training to its end."""
        step = start.step
        for epoch in range(start.epoch, epochs):
            order = self.order(epoch)
            while step < self.steps_per_epoch:
                yield self._ticket(Position(epoch=epoch, step=step), order)
                step += 1
            step -= self.steps_per_epoch

    def order(self, epoch: int) -> Int[np.ndarray, " N"]:
        """Return the images of an epoch, for all processes together."""
        rng = np.random.default_rng((self._sampling.seed, epoch, _ORDER))
        order = np.arange(self._count)
        if self._weights is not None:
            # Evenly spaced marks: an image comes up its expected number of times, to the whole.
            marks = (rng.random() + order) / self._count
            order = np.searchsorted(np.cumsum(self._weights), marks).clip(max=self._count - 1)
        together = self._sampling.batch_size * self._shard.world
        return np.resize(rng.permutation(order), self.steps_per_epoch * together)

    def _ticket(self, position: Position, order: np.ndarray) -> Ticket:
        batch = self._sampling.batch_size
        first = (position.step * self._shard.world + self._shard.rank) * batch
        places = range(first, first + batch)
        return Ticket(
            position=position,
            indices=tuple(int(order[place]) for place in places),
            places=tuple(places),
            image_size=self._image_size(position),
            last=position.step == self.steps_per_epoch - 1,
        )

    def _image_size(self, position: Position) -> int:
        """Return the side of one batch, the same in every process."""
        size, share = self._sampling.image_size, self._sampling.multi_scale
        if not share:
            return size
        key = (self._sampling.seed, position.epoch, _SIZE, position.step)
        low = max(round(size * (1 - share) / STRIDE), 1)
        high = self._sampling.largest_size // STRIDE
        return STRIDE * int(np.random.default_rng(key).integers(low, high, endpoint=True))


def sample_generator(seed: int, epoch: int, place: int) -> np.random.Generator:
    """Return the generator of one sample, which depends on nothing else."""
    return np.random.default_rng((seed, epoch, _SAMPLE, place))


def class_weights(split: Split) -> Float[np.ndarray, " N"]:
    """Return the share of an epoch each image gets if rare classes are to come up more often.

    An image counts as its rarest class does, one over the root of the images that have it; an
    image without objects as the commonest.
    """
    present = split.presence()
    having = np.maximum(present.sum(axis=0), 1)
    worth = np.where(present, 1 / np.sqrt(having), 0).max(axis=1)
    worth = np.where(worth > 0, worth, 1 / np.sqrt(having.max()))
    return worth / worth.sum()
