# SPDX-License-Identifier: Apache-2.0
"""What engines share that run in the thread that calls them. Axes as in `contract`."""

from abc import ABC, abstractmethod

import numpy as np
from jaxtyping import Float32, UInt8

from model.engines.contract import Done, Gives, Takes, check_images, check_request
from model.errors import EngineError

STRIDES = (8, 16, 32)

InputShape = tuple[int, int, int, int]


def count_anchors(height: int, width: int) -> int:
    """Return how many anchor points a canvas has."""
    return sum(height // stride * (width // stride) for stride in STRIDES)


class DirectEngine(ABC):
    """One request at a time: it has ended when `start` returns."""

    takes: Takes = "canvases"
    gives: Gives = "predictions"
    has_room = True
    failures: tuple[type[Exception], ...] = (RuntimeError,)
    """What running may raise."""

    def __init__(
        self, name: str, classes: tuple[str, ...], input_shape: InputShape, precision: str = "f32"
    ) -> None:
        batch, height, width, _ = input_shape
        self.name = name
        self.precision = precision
        self.classes = classes
        self.input_shape = input_shape
        self.output_shape = (batch, 4 + len(classes), count_anchors(height, width))
        self.num_requests = 1
        self._closed = False

    @abstractmethod
    def _run(self, images: UInt8[np.ndarray, "B H W 3"]) -> Float32[np.ndarray, "B rows A"]:
        """Return what the network says; the images are of the right shape."""

    def infer(self, images: UInt8[np.ndarray, "B H W 3"]) -> Float32[np.ndarray, "B rows A"]:
        check_images(self, images)
        if self._closed:
            raise EngineError("this engine is closed")
        try:
            return self._run(np.ascontiguousarray(images))
        except self.failures as failure:
            raise EngineError(f"{self.name} failed: {first_line(failure)}") from failure

    def start(
        self,
        images: UInt8[np.ndarray, "B H W 3"],
        predictions: Float32[np.ndarray, "B rows A"],
        on_done: Done,
    ) -> None:
        check_request(self, images, predictions)
        if self._closed:
            raise EngineError("this engine is closed")
        try:
            predictions[...] = self.infer(images)
        except EngineError as failure:
            on_done(failure)
        else:
            on_done(None)

    def close(self) -> None:
        """Give back what can be; subclasses drop what they hold."""
        self._closed = True


def first_line(failure: Exception) -> str:
    """Return what a library says, without what follows."""
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(failure).__name__
