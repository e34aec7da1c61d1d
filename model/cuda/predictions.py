# SPDX-License-Identifier: Apache-2.0
"""The detector on an NVIDIA GPU for who wants predictions: evaluation, parity, a loaded detector.

One request at a time, by eager torch; frames of a running pipeline go through `model.cuda.engine`.
The number format is that of the compiled network, so what it finds is measured here. Axes as in
`contract`. It was run on a processor only.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from model.card import read_card
from model.cuda.draft import Draft
from model.cuda.plan import NetworkPlan, NumberFormat
from model.engines.contract import writeable_view
from model.engines.direct import DirectEngine, InputShape
from model.head import decode, in_float32


class PredictionsEngine(DirectEngine):
    """Eager torch on a GPU, in the number format of engine `cuda`."""

    def __init__(
        self,
        weights: Path,
        input_shape: InputShape,
        number_format: NumberFormat,
        *,
        device: int = 0,
    ) -> None:
        """Bring the detector to a device; -1 is the processor, as tests have it."""
        batch, height, width, _ = input_shape
        plan = NetworkPlan(
            weights=weights,
            canvas_hw=(height, width),
            batch=batch,
            number_format=number_format,
            how="eager",
            device=device,
        )
        self._draft = Draft(plan)
        self._detector = self._draft.module.detector
        super().__init__("cuda", read_card(weights).classes, input_shape, number_format)

    def _run(self, images: UInt8[np.ndarray, "B H W 3"]) -> Float32[np.ndarray, "B rows A"]:
        with torch.inference_mode():
            pixels = torch.from_numpy(writeable_view(images)).to(self._draft.device)
            scaled = (pixels.permute(0, 3, 1, 2).float() / 255).to(self._draft.dtype)
            return decode(in_float32(self._detector.logits(scaled))).cpu().numpy()
