# SPDX-License-Identifier: Apache-2.0
"""Torch compiled for one shape by its own compiler, inductor. Axes as in `contract`.

Compiling takes a minute and a C++ compiler; what was compiled is kept beside the other built
engines, so that the next start takes seconds.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from model.engines.compiler import prepare_compiler
from model.engines.contract import writeable_view
from model.engines.direct import DirectEngine, InputShape, first_line
from model.errors import EngineError
from model.pixels import PixelDetector
from model.weights import load_detector


class InductorEngine(DirectEngine):
    """A compiled detector; compiled when it is made, never later."""

    def __init__(self, weights: Path, input_shape: InputShape, num_threads: int | None) -> None:
        prepare_compiler("model.engine: inductor")
        if num_threads is not None:
            torch.set_num_threads(num_threads)
        detector, card = load_detector(weights)
        super().__init__("inductor", card.classes, input_shape)
        # torch's own annotations lack this overload
        channels_last = detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._compiled = torch.compile(
            PixelDetector(channels_last).eval(),
            fullgraph=True,
            dynamic=False,
            options={"freezing": True},
        )
        try:
            self._run(np.zeros(input_shape, np.uint8))
        except RuntimeError as failure:
            raise EngineError(
                f"{weights}: torch cannot compile this: {first_line(failure)}"
            ) from failure

    def _run(self, images: UInt8[np.ndarray, "B H W 3"]) -> Float32[np.ndarray, "B rows A"]:
        with torch.inference_mode():
            return self._compiled(torch.from_numpy(writeable_view(images))).numpy().copy()
