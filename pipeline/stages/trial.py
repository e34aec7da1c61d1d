# SPDX-License-Identifier: Apache-2.0
"""For infer: a model that is to take the place of another, from its order to its proof."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np

from model.engines.contract import Engine
from model.errors import ModelError
from pipeline.errors import PipelineError, StageError
from pipeline.models import ModelInUse
from pipeline.stages.lanes import Shape

_GOOD_RESULTS = 8
_TRIAL_S = 10.0  # without frames no result can prove it, and the engine before is not kept for ever
_GREY = 114


class Trial:
    """Engines of a new model beside those of the old, and how its first results are."""

    def __init__(
        self, model: ModelInUse, submit: Callable[[ModelInUse, Shape], Future[Engine]]
    ) -> None:
        self.model = model
        self.begun_s = time.monotonic()
        self.switched = False
        """Whether frames are given to it."""
        self.told = False
        """Whether the supervisor knows that it passed."""
        self._submit = submit
        self._engines: dict[Shape, Future[Engine]] = {}
        self._num_good = 0
        self._until_s = 0.0
        self._alarm: threading.Timer | None = None

    def build(self, shape: Shape) -> None:
        """Have an engine for a shape built, unless it is."""
        if shape not in self._engines:
            self._engines[shape] = self._submit(self.model, shape)

    @property
    def built(self) -> bool:
        """Whether every engine is there, or will never be."""
        return all(engine.done() for engine in self._engines.values())

    @property
    def fault(self) -> str:
        """Why an engine could not be built; empty where all could."""
        for engine in self._engines.values():
            if engine.done() and (error := engine.exception()) is not None:
                return say(error)
        return ""

    def take(self, shape: Shape) -> Future[Engine]:
        """Hand the engine for a shape over."""
        return self._engines.pop(shape)

    def begin(self, wake: Callable[[], None]) -> None:
        """Begin to count results; `wake` is called when the trial is over without any."""
        self.switched = True
        self._until_s = time.monotonic() + _TRIAL_S
        self._alarm = threading.Timer(_TRIAL_S, wake)
        self._alarm.daemon = True
        self._alarm.start()

    def note_good(self) -> None:
        """Count a result that is as it should be."""
        self._num_good += 1

    @property
    def passed(self) -> bool:
        """Whether the engines before need be kept no longer."""
        return self._num_good >= _GOOD_RESULTS or time.monotonic() >= self._until_s

    def close(self) -> None:
        """Give back what nobody took."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm.join()
        for engine in self._engines.values():
            engine.add_done_callback(close_built)


def warm(engine: Engine, model: ModelInUse) -> Engine:
    """Have an engine look at a grey picture, and see that the result is one.

    Raises:
        StageError: it is none.
    """
    try:
        if model.class_map is not None and len(engine.classes) != len(model.class_map):
            raise StageError(f"it has {len(engine.classes)} classes, not as its card says")
        check_result(engine.infer(np.full(engine.input_shape, _GREY, np.uint8)))
    except BaseException:
        engine.close()
        raise
    return engine


def check_result(rows: np.ndarray) -> None:
    """See that a result is made of numbers.

    Raises:
        StageError: it is not.
    """
    if not np.isfinite(rows).all():
        raise StageError("its results are no numbers")


def say(error: BaseException) -> str:
    """What went wrong, in a line."""
    known = isinstance(error, ModelError | PipelineError)
    text = str(error) if known else f"{type(error).__name__}: {error}"
    return " ".join(text.split())


def close_built(built: Future[Engine]) -> None:
    """Close an engine that nobody wants any more, if there is one."""
    if not built.cancelled() and built.exception() is None:
        built.result().close()
