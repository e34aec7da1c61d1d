# SPDX-License-Identifier: Apache-2.0
"""An engine at full load: as many requests in flight as serve it best."""

import threading
from collections import deque
from collections.abc import Sequence

import numpy as np

from model.cuda.coded import CodedPicture
from model.engines.contract import Engine, start_request


def keep_busy(
    engine: Engine, images: Sequence[np.ndarray | CodedPicture], num_requests: int
) -> int:
    """Make requests of these images in turn and wait for all; returns how many were made.

    Args:
        engine: What is to be kept busy.
        images: uint8 B H W 3 each, or pictures, as the engine takes them.
        num_requests: How many requests to make in all.

    Raises:
        BaseException: what a request ended with, if not well.
    """
    free = deque(np.empty(engine.output_shape, np.float32) for _ in range(engine.num_requests))
    room = threading.Semaphore(engine.num_requests)
    failed: list[BaseException] = []
    for number in range(num_requests):
        room.acquire()
        predictions = free.popleft()

        def on_done(error: BaseException | None, predictions: np.ndarray = predictions) -> None:
            if error is not None:
                failed.append(error)
            free.append(predictions)
            room.release()

        start_request(engine, images[number % len(images)], predictions, on_done)
    for _ in range(engine.num_requests):
        room.acquire()
    if failed:
        raise failed[0]
    return num_requests
