# SPDX-License-Identifier: Apache-2.0
"""What every engine promises: a compiled detector of one fixed shape.

Axes: B batch, H and W height and width of the canvas in pixels, A anchor points. The rows are
left, top, right, bottom in canvas pixels, then one score per class.
"""

import ctypes
from collections.abc import Callable
from queue import SimpleQueue
from typing import Literal, Protocol, TypeGuard, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8

from model.cuda.coded import CodedPicture
from model.cuda.device import Device

Done = Callable[[BaseException | None], None]
"""Called once per request, from any thread, with the failure if there was one; never raises."""
Takes = Literal["canvases", "coded"]
"""What an engine looks at: canvases alone, or pictures as decoders make them too."""
Gives = Literal["predictions", "boxes"]
"""What it says about them: what the network said, or what suppression left of it."""


@runtime_checkable
class Engine(Protocol):
    """A detector that is ready to run. A result depends on its own images alone."""

    name: str
    """Such as `openvino`; with what compiled it where there is a choice: `cuda (aoti)`."""
    precision: str
    """What it really computes in, e.g. `bf16`."""
    classes: tuple[str, ...]
    input_shape: tuple[int, int, int, int]
    """B, H, W, 3: uint8 RGB."""
    output_shape: tuple[int, int, int]
    """B, 4 + classes, A: float32; of boxes as `model/engines/found.py` has it."""
    num_requests: int
    """Requests in flight that serve it best, and the most it takes."""
    takes: Takes
    """Where it is `coded`, this is a `CodedEngine`."""
    gives: Gives

    @property
    def has_room(self) -> bool:
        """Whether it takes one more request now; if not, it does again when one has ended."""
        ...

    def infer(self, images: UInt8[np.ndarray, "B H W 3"]) -> Float32[np.ndarray, "B rows A"]:
        """Run one batch and wait for it. The result is a new array."""
        ...

    def start(
        self,
        images: UInt8[np.ndarray, "B H W 3"],
        predictions: Float32[np.ndarray, "B rows A"],
        on_done: Done,
    ) -> None:
        """Begin one request, at most `num_requests` at a time.

        Args:
            images: Read until `on_done` is called; C-contiguous.
            predictions: Written by then; C-contiguous, not to be touched before.
            on_done: Told the end of this request.
        """
        ...

    def close(self) -> None:
        """Finish what was started and give everything back. Twice is once."""
        ...


class PictureMemory(Protocol):
    """Wants to know of the memory that pictures come to lie in, for all of an accelerator."""

    def register(self, memory: UInt8[np.ndarray, " bytes"]) -> object:
        """Hear of memory, once, before any picture in it is given to an engine."""
        ...

    def forget(self, memory: UInt8[np.ndarray, " bytes"]) -> None:
        """Hear that no other picture in it will be; it stays for those that were."""
        ...


class CodedEngine(Engine, Protocol):
    """An engine that also looks at pictures as decoders make them."""

    @property
    def host_memory(self) -> PictureMemory:
        """Where it reads pictures by itself; others it has to copy first."""
        ...

    @property
    def device(self) -> Device | None:
        """Where else it reads them, without a copy; None if it has no memory of its own."""
        ...

    def start(
        self,
        images: UInt8[np.ndarray, "B H W 3"] | CodedPicture,
        predictions: Float32[np.ndarray, "B rows A"],
        on_done: Done,
    ) -> None:
        """Begin one request; a picture has as many regions as the engine has images."""
        ...


def takes_coded(engine: Engine) -> TypeGuard[CodedEngine]:
    """Whether an engine also looks at pictures as decoders make them."""
    return engine.takes == "coded"


def start_request(
    engine: Engine,
    images: UInt8[np.ndarray, "B H W 3"] | CodedPicture,
    predictions: Float32[np.ndarray, "B rows A"],
    on_done: Done,
) -> None:
    """Begin a request; a picture is for an engine that looks at such."""
    if isinstance(images, CodedPicture):
        assert takes_coded(engine), f"{engine.name} takes canvases"
        engine.start(images, predictions, on_done)
    else:
        engine.start(images, predictions, on_done)


def infer_by_request(
    engine: Engine, images: UInt8[np.ndarray, "B H W 3"] | CodedPicture
) -> Float32[np.ndarray, "B rows A"]:
    """Run one batch as a request and wait for its end."""
    if not isinstance(images, CodedPicture):
        check_images(engine, images)
        images = np.ascontiguousarray(images)
    predictions = np.empty(engine.output_shape, np.float32)
    ended: SimpleQueue[BaseException | None] = SimpleQueue()
    start_request(engine, images, predictions, ended.put)
    failure = ended.get()
    if failure is not None:
        raise failure
    return predictions


def check_images(engine: Engine, images: np.ndarray) -> None:
    """Refuse images that the engine was not built for."""
    _check("images", images, engine.input_shape, np.dtype(np.uint8))


def check_request(engine: Engine, images: np.ndarray, predictions: np.ndarray) -> None:
    """Refuse memory that a request cannot read from or write to directly."""
    check_images(engine, images)
    _check("predictions", predictions, engine.output_shape, np.dtype(np.float32))
    if not predictions.flags.writeable:
        raise ValueError("predictions must be writeable")
    for name, array in (("images", images), ("predictions", predictions)):
        if not array.flags.c_contiguous:
            raise ValueError(f"{name} must be C-contiguous, got strides {array.strides}")


def writeable_view(array: np.ndarray) -> np.ndarray:
    """View an array as writeable, for libraries that refuse others though they only read."""
    if array.flags.writeable:
        return array
    memory = (ctypes.c_uint8 * array.nbytes).from_address(array.ctypes.data)
    return np.ctypeslib.as_array(memory).view(array.dtype).reshape(array.shape)


def _check(name: str, array: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(
            f"{name} must be {dtype} of shape {shape}, got {array.dtype} of shape {array.shape}"
        )
