# SPDX-License-Identifier: Apache-2.0
"""Detectors as functions of a batch on its canvas: a torch module, or an engine of any kind.

Axes: B batch, H and W of the canvas, A anchor points.
"""

from collections import OrderedDict
from typing import Final

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor, nn

from model.config import ModelConfig
from model.engines import Engine, build_engine

MAX_ENGINES: Final = 4
"""Canvases that are kept ready; the one not used for longest makes room."""


class TorchPredictor:
    """Looks with a detector as it is in training, unfused or not, in float32."""

    def __init__(self, detector: nn.Module, device: torch.device | str = "cpu") -> None:
        self._detector = detector
        self._device = torch.device(device)

    def __call__(self, images: UInt8[Tensor, "B 3 H W"]) -> Float32[np.ndarray, "B rows A"]:
        """Look at a batch; whether the detector trains is as it was before."""
        training = self._detector.training
        self._detector.eval()
        try:
            with torch.inference_mode():
                pixels = images.to(self._device, non_blocking=True).float() / 255
                return self._detector(pixels).float().cpu().numpy()
        finally:
            self._detector.train(training)


class EnginePredictor:
    """Looks with weights or an artefact, as `sightline run` does: an engine for each canvas."""

    def __init__(self, config: ModelConfig) -> None:
        self._config = config
        self._engines: OrderedDict[tuple[int, int], Engine] = OrderedDict()

    def __call__(self, images: UInt8[Tensor, "B 3 H W"]) -> Float32[np.ndarray, "B rows A"]:
        pixels = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
        _, height, width, _ = pixels.shape
        engine = self._engine((height, width))
        return np.concatenate([engine.infer(image[None]) for image in pixels])

    def close(self) -> None:
        """Give the engines back."""
        while self._engines:
            self._engines.popitem()[1].close()

    def _engine(self, canvas_hw: tuple[int, int]) -> Engine:
        engine = self._engines.pop(canvas_hw, None)
        if engine is None:
            if len(self._engines) == MAX_ENGINES:
                self._engines.popitem(last=False)[1].close()
            engine = build_engine(self._config, image_hw=canvas_hw, num_requests=1)
        self._engines[canvas_hw] = engine
        return engine
