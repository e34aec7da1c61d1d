# SPDX-License-Identifier: Apache-2.0
"""TensorRT through torch-tensorrt, compiled for one shape when it is made. Axes as in `contract`.

This engine was never run: TensorRT cannot be installed where this was written. Its tests hold it
against the signature that torch-tensorrt documents, which says nothing about results or speed.
"""

from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from model.config import Precision
from model.engines.contract import writeable_view
from model.engines.direct import DirectEngine, InputShape, first_line
from model.errors import EngineError
from model.weights import load_detector


def require_tensorrt() -> ModuleType:
    """Return torch-tensorrt, or say what this machine lacks."""
    try:
        import torch_tensorrt
    except ImportError:
        raise EngineError(
            "model.engine: tensorrt needs torch-tensorrt (extra: tensorrt); install it with: "
            "pip install -e '.[tensorrt]'"
        ) from None
    if not torch.cuda.is_available():
        raise EngineError("model.engine: tensorrt needs CUDA, which torch does not find here")
    return torch_tensorrt


class TensorRtEngine(DirectEngine):
    """A detector on an NVIDIA GPU; pictures go there as bytes and become floats there."""

    def __init__(self, weights: Path, input_shape: InputShape, precision: Precision) -> None:
        tensorrt = require_tensorrt()
        detector, card = load_detector(weights)
        super().__init__("tensorrt", card.classes, input_shape)
        batch, height, width, _ = input_shape
        example = torch.zeros(batch, 3, height, width, device="cuda")
        try:
            with torch.no_grad():
                program = torch.export.export(detector.cuda(), (example,))
            self._compiled = tensorrt.dynamo.compile(
                program, inputs=[example], disable_tf32=precision == "accuracy"
            )
        except RuntimeError as failure:
            raise EngineError(
                f"{weights}: TensorRT cannot compile this: {first_line(failure)}"
            ) from failure

    def _run(self, images: UInt8[np.ndarray, "B H W 3"]) -> Float32[np.ndarray, "B rows A"]:
        with torch.inference_mode():
            pixels = torch.from_numpy(writeable_view(images)).cuda().permute(0, 3, 1, 2)
            return self._compiled((pixels.float() / 255).contiguous()).cpu().numpy()
