# SPDX-License-Identifier: Apache-2.0
"""Packages of code that AOTInductor compiled. Axes as in `contract`.

Torch is needed, a compiler is not. Loading a package runs code from it with the user's rights, so
this engine is never picked: it is named by who trusts the file.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from model.card import read_card
from model.engines.contract import writeable_view
from model.engines.direct import DirectEngine, InputShape, first_line
from model.engines.packages import load_package
from model.errors import EngineError, WeightsError
from model.package import package_digest


class AotiEngine(DirectEngine):
    """Compiled code of one shape."""

    def __init__(self, artefact: Path, input_shape: InputShape, num_threads: int | None) -> None:
        if num_threads is not None:
            torch.set_num_threads(num_threads)
        card = read_card(artefact)
        assert card.built is not None
        if package_digest(artefact) != card.built.graph_sha256:
            raise WeightsError(f"{artefact}: the artefact is damaged; export it again")
        super().__init__("aoti", card.classes, input_shape)
        try:
            self._package = load_package(artefact)
        except RuntimeError as failure:
            raise EngineError(
                f"{artefact}: torch cannot load this: {first_line(failure)}"
            ) from failure

    def _run(self, images: UInt8[np.ndarray, "B H W 3"]) -> Float32[np.ndarray, "B rows A"]:
        with torch.inference_mode():
            (predictions,) = self._package.run([torch.from_numpy(writeable_view(images))])
            return predictions.numpy().copy()
