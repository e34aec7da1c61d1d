# SPDX-License-Identifier: Apache-2.0
"""The reference engine: eager torch in float32. Axes as in `contract`.

Images of a batch are run one by one: the last bit of a score can depend on where in memory it
lies, and so on the image's place in the batch.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from model.engines.contract import writeable_view
from model.engines.direct import DirectEngine, InputShape
from model.weights import load_detector


class TorchEngine(DirectEngine):
    """Runs in the thread that calls it."""

    def __init__(self, weights: Path, input_shape: InputShape, num_threads: int | None) -> None:
        if num_threads is not None:
            torch.set_num_threads(num_threads)
        detector, card = load_detector(weights)
        # torch's own annotations lack this overload
        self._detector = detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__("torch", card.classes, input_shape)

    def _run(self, images: UInt8[np.ndarray, "B H W 3"]) -> Float32[np.ndarray, "B rows A"]:
        with torch.inference_mode():
            pixels = torch.from_numpy(writeable_view(images)).permute(0, 3, 1, 2).float() / 255
            return torch.cat([self._detector(image) for image in pixels.split(1)]).numpy()
