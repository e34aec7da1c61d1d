# SPDX-License-Identifier: Apache-2.0
"""Processes that make batches ahead, in the order in which they are wanted.

Of W workers each makes every W-th batch, so it is always known whose is next. Pixels lie in memory
that worker and parent share from the fork on, two batches of each worker; the parent copies a batch
out (into pinned memory, if a GPU is to fetch it) before the worker gets its place back. That
memory has no name and is not taken from /dev/shm, of which a container has 64 MB.

A worker ends when its parent does, however that ends. If any worker dies, loading ends at once.
"""

import mmap
import multiprocessing
import pickle
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle, islice
from multiprocessing.connection import Connection, wait
from typing import Any, Final, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor

from model.errors import DataError
from training.batches import EvaluationBatch, Failed, TrainingBatch

B = TypeVar("B", TrainingBatch, EvaluationBatch)
AHEAD: Final = 2
"""Batches that each worker makes before the first is taken."""
PATIENCE_S: Final = 10.0
"""How long a worker may take to end a batch that nobody wants any more."""


def made_here(
    make: Callable[[Any], B | Failed], orders: Iterable[Any], *, pin: bool
) -> Iterator[B]:
    """Make each batch when it is asked for."""
    for order in orders:
        batch = make(order)
        if isinstance(batch, Failed):
            raise DataError(batch.reason)
        yield batch._replace(images=batch.images.pin_memory()) if pin else batch


def made_ahead(
    make: Callable[[Any], B | Failed],
    orders: Iterable[Any],
    *,
    workers: int,
    batch_bytes: int,
    pin: bool,
) -> Iterator[B]:
    """Have batches made by processes.

    Args:
        make: Makes the batch of an order; it is forked, not copied.
        orders: Of all batches.
        workers: How many processes.
        batch_bytes: Pixels of the largest batch.
        pin: Whether batches are to lie in pinned memory.

    Raises:
        DataError: a batch cannot be made, a worker died, or the memory cannot be had.
    """
    team: list[_Worker] = []
    stop = np.frombuffer(mmap.mmap(-1, 1), np.uint8)  # no lock, which a killed worker might hold
    try:
        team.extend(_Worker(make, batch_bytes, stop) for _ in range(workers))
        rest = iter(orders)
        busy: deque[_Worker] = deque()
        for worker, order in zip(islice(cycle(team), workers * AHEAD), rest, strict=False):
            worker.give(order)
            busy.append(worker)
        while busy:
            worker = busy.popleft()
            batch = worker.take(team, pin=pin)
            for order in islice(rest, 1):
                worker.give(order)
                busy.append(worker)
            yield batch
    finally:
        stop[0] = 1
        for worker in team:
            worker.dismiss()


@dataclass(frozen=True, slots=True)
class _Made:
    """A batch whose pixels lie in a place of the shared memory."""

    batch: TrainingBatch | EvaluationBatch
    shape: tuple[int, ...]


class _Worker:
    """One process, as its parent sees it."""

    def __init__(self, make: Callable[[Any], Any], batch_bytes: int, stop: np.ndarray) -> None:
        context = multiprocessing.get_context("fork")
        try:
            memory = mmap.mmap(-1, AHEAD * batch_bytes)
        except (OSError, ValueError, OverflowError) as failure:
            raise DataError(
                f"{AHEAD * batch_bytes / 2**20:.0f} MB for the batches of a worker cannot be had "
                f"({failure}): take fewer workers or smaller batches"
            ) from None
        self._places = np.frombuffer(memory, np.uint8).reshape(AHEAD, batch_bytes)
        self._pipe, theirs = context.Pipe()
        arguments = (_Bench(make, theirs, self._places, stop), self._pipe)
        self._process = context.Process(target=_work, args=arguments, daemon=True)
        self._process.start()
        self._taken = 0
        theirs.close()

    def give(self, order: Any) -> None:
        """Hand over an order; if the worker is dead, `take` will say so."""
        with suppress(OSError):
            self._pipe.send(order)

    def take(self, team: "list[_Worker]", *, pin: bool) -> Any:
        """Wait for the next batch, and copy it out."""
        ready = wait([self._pipe, *(worker._process.sentinel for worker in team)])  # noqa: SLF001
        try:
            if self._pipe not in ready:
                raise EOFError
            made = pickle.loads(self._pipe.recv_bytes())
        except (EOFError, OSError):
            raise DataError(_obituary(team)) from None
        if isinstance(made, Failed):
            raise DataError(made.reason)
        pixels = torch.empty(made.shape, dtype=torch.uint8, pin_memory=pin)
        kept = self._places[self._taken % AHEAD, : pixels.numel()].reshape(made.shape)
        self._taken += 1
        np.copyto(pixels.numpy(), kept)
        return made.batch._replace(images=pixels.permute(0, 3, 1, 2))

    def dismiss(self) -> None:
        """End the process; what it is making is finished first, so that it holds no lock."""
        self.give(None)
        self._pipe.close()
        self._process.join(PATIENCE_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def exit_code(self) -> int | None:
        self._process.join(1)
        return self._process.exitcode


@dataclass(frozen=True, slots=True)
class _Bench:
    """What a worker works with."""

    make: Callable[[Any], Any]
    pipe: Connection
    places: np.ndarray
    stop: np.ndarray


def _work(bench: _Bench, parents: Connection) -> None:
    """Make batches until there is nobody to hand them to."""
    parents.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    torch.set_num_threads(1)
    # 0 runs OpenCV in the calling thread. Any other number would first have to end threads that
    # the fork has left behind in the parent, and wait for ever.
    cv2.setNumThreads(0)
    with suppress(EOFError, OSError):
        for place in cycle(bench.places):
            order = bench.pipe.recv()
            if bench.stop[0]:
                return
            made = bench.make(order)
            # By way of bytes, because a pipe would send tensors through /dev/shm.
            bench.pipe.send_bytes(pickle.dumps(_placed(made, place)))


def _placed(made: Any, place: np.ndarray) -> Any:
    """Put the pixels of a batch into their place, and return the rest."""
    if isinstance(made, Failed):
        return made
    pixels = made.images.permute(0, 2, 3, 1).numpy()
    place[: pixels.size] = pixels.reshape(-1)
    return _Made(made._replace(images=_NO_IMAGES), pixels.shape)


def _obituary(team: list[_Worker]) -> str:
    codes = [code for worker in team if (code := worker.exit_code()) is not None]
    how = f"signal {-codes[0]}" if codes and codes[0] < 0 else f"exit code {codes[:1]}"
    return (
        f"a process that makes batches died ({how}); if memory ran out, take fewer workers "
        f"(loading.workers={len(team)})"
    )


_NO_IMAGES: Final[Tensor] = torch.empty((0, 3, 0, 0), dtype=torch.uint8)
