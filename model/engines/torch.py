# SPDX-License-Identifier: Apache-2.0
"""The reference engine: eager torch in float32. Axes as in `contract`."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from model.engines.contract import Done, check_images, check_request, writeable_view
from model.weights import load_detector


class TorchEngine:
    """Runs in the thread that calls it."""

    def __init__(
        self, weights: Path, input_shape: tuple[int, int, int, int], num_threads: int | None
    ) -> None:
        if num_threads is not None:
            torch.set_num_threads(num_threads)
        detector, card = load_detector(weights)
        # torch's own annotations lack this overload
        self._detector = detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        batch, height, width, _ = input_shape
        num_anchors = sum(height // stride * (width // stride) for stride in (8, 16, 32))
        self.name = "torch"
        self.precision = "f32"
        self.classes = card.classes
        self.input_shape = input_shape
        self.output_shape = (batch, 4 + len(card.classes), num_anchors)
        self.num_requests = 1

    def infer(self, images: UInt8[np.ndarray, "B H W 3"]) -> Float32[np.ndarray, "B rows A"]:
        check_images(self, images)
        with torch.inference_mode():
            channels_last = torch.from_numpy(writeable_view(images)).permute(0, 3, 1, 2)
            return self._detector(channels_last.float() / 255).numpy()

    def start(
        self,
        images: UInt8[np.ndarray, "B H W 3"],
        predictions: Float32[np.ndarray, "B rows A"],
        on_done: Done,
    ) -> None:
        check_request(self, images, predictions)
        try:
            predictions[...] = self.infer(images)
        except RuntimeError as failure:
            on_done(failure)
        else:
            on_done(None)

    def close(self) -> None:
        """Nothing is held beyond memory."""
