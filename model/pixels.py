# SPDX-License-Identifier: Apache-2.0
"""The detector as what exporters and compilers are given: pictures in, predictions out.

Axes: B batch, H and W height and width of the canvas, A anchor points.
"""

from jaxtyping import Float, UInt8
from torch import Tensor, nn

from model.network import Detector


class PixelDetector(nn.Module):
    """A detector that takes pictures as they are: uint8, RGB, channels last."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: UInt8[Tensor, "B H W 3"]) -> Float[Tensor, "B rows A"]:
        return self.detector(images.permute(0, 3, 1, 2).float() / 255)
