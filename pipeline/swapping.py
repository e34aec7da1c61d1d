# SPDX-License-Identifier: Apache-2.0
"""Which model the trunks are to run: the one in use, and the one that is to take its place.

Every trunk tries the new one and keeps the old one beside it until it has proved itself in all of
them; if it fails in one, all go back. Asked from any thread, answered by the supervisor's.
"""

import logging
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from model.card import read_card
from model.errors import ConfigError, EngineError
from pipeline.decoding.inputs import Source
from pipeline.engines import takes_here
from pipeline.graph import Plan
from pipeline.models import ModelInUse, successor
from pipeline.transport.control import (
    AboutModel,
    KeepModel,
    LeaveModel,
    SwapModel,
)

logger = logging.getLogger(__name__)


class Swapping:
    """One swap at a time, and how it ends."""

    def __init__(self, plan: Plan) -> None:
        self.in_use = ModelInUse(config=plan.config.model)
        """What a trunk that begins now runs."""
        self._plan = plan
        self._num_asked = 0
        self._next: ModelInUse | None = None
        self._told = False
        self._trying: set[int] = set()
        """The trunks in which the new one has not proved itself yet."""
        self._endings: deque[AboutModel] = deque()
        """What trunks must be told of models whose trial is over."""
        self._outcome: Future[ModelInUse] = Future()
        self._lock = threading.Lock()

    def ask(self, weights: Path, sources: Iterable[Source]) -> Future[ModelInUse]:
        """Have other weights take the place; the future tells how that went.

        Raises:
            ModelError: they cannot be read or run, lack classes that are looked for in the sources,
                or others are on their way already.
        """
        if self._plan.config.remote is not None:
            raise ConfigError(f"{weights}: boxes are found on another host; change the model there")
        asked = _asked_classes(self._plan, sources)
        model = successor(self.in_use.config, weights, self._plan.classes, asked)
        _refuse_other_pictures(self._plan, model)
        with self._lock:
            if self._next is not None:
                raise ConfigError(
                    f"{model.config.weights}: {self._next.config.weights} is being tried now; "
                    "ask again when that is settled"
                )
            self._num_asked += 1
            self._told = False
            self._outcome = Future()
            self._next = replace(model, number=self._num_asked)
            return self._outcome

    def orders(self, trunks: Iterable[int]) -> Iterator[AboutModel]:
        """What these trunks, which are all there are, must be told and were not."""
        while self._endings:
            yield self._endings.popleft()
        model = self._next
        if model is None or self._told:
            return
        self._told = True
        self._trying = set(trunks)
        config = model.config.model_dump(mode="json")
        yield SwapModel(number=model.number, config=config, class_map=model.class_map)

    def on_failed(self, number: int, reason: str) -> None:
        """Note that a model failed in a trunk."""
        if self._next is not None and number == self._next.number:
            self.fail(reason)

    def on_passed(self, trunk: int, number: int) -> None:
        """Note that a model proved itself in a trunk."""
        model = self._next
        if model is None or number != model.number:
            return
        self._trying.discard(trunk)
        if self._trying:
            return
        logger.info("%s: runs from here on", model.config.weights)
        self._endings.append(KeepModel(number=model.number))
        self.in_use, self._next = model, None
        self._outcome.set_result(model)

    def on_trunk_lost(self, reason: str) -> None:
        """Note that a trunk died; if it was at a new model, that was too much for it."""
        if self._told:
            self.fail(f"the process that tried it ended: {reason}")

    def fail(self, reason: str) -> None:
        """Give the new model up, if there is one; the one in use goes on."""
        model, self._next = self._next, None
        if model is None:
            return
        self._endings.append(LeaveModel(number=model.number))
        fault = f"{model.config.weights}: cannot take over: {reason}"
        logger.warning("%s; %s runs on", fault, self.in_use.config.weights)
        self._outcome.set_exception(EngineError(fault))


def _refuse_other_pictures(plan: Plan, model: ModelInUse) -> None:
    """Refuse a model whose engine is given other pictures than those that are on their way.

    Raises:
        ConfigError: it is one.
    """
    weights = model.config.weights
    assert weights is not None
    config = plan.config.model_copy(update={"model": model.config})
    takes = takes_here(config, read_card(weights))
    if takes != plan.takes:
        raise ConfigError(
            f"{weights}: its engine takes {takes} pictures, those that run take {plan.takes}; "
            "restart with this model"
        )


def _asked_classes(plan: Plan, sources: Iterable[Source]) -> set[str]:
    """The classes somebody looks for: by name, or all of them."""
    cameras = [source.camera for source in sources]
    asked: set[str] = set()
    if not cameras or any(not camera.classes for camera in cameras):
        asked.update(plan.config.classes or plan.classes)
    for camera in cameras:
        asked.update(camera.classes, camera.scores)
    return asked
