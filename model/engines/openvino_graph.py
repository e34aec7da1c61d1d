# SPDX-License-Identifier: Apache-2.0
"""The graph that OpenVINO compiles: uint8 pixels in, predictions out."""

from pathlib import Path

import openvino
import torch
from openvino.preprocess import PrePostProcessor

from model.weights import load_detector

_TRACED_SIDE = 64
"""What is traced where any side will do: two cells of the coarsest level."""


def build_graph(weights: Path, input_shape: tuple[int, int, int, int]) -> openvino.Model:
    """Convert the detector in a weights file for uint8 images, B H W 3; -1 stands for any side."""
    detector, _ = load_detector(weights)
    batch, height, width, _ = input_shape
    sides = (side if side > 0 else _TRACED_SIDE for side in (height, width))
    example = torch.zeros(max(batch, 1), 3, *sides)
    with torch.inference_mode():
        traced = torch.jit.trace(detector, example, check_trace=False)
    model = openvino.convert_model(
        traced,
        example_input=example,
        input=[openvino.PartialShape([batch, 3, height, width])],
    )
    steps = PrePostProcessor(model)
    pixels = steps.input()
    pixels.tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    pixels.model().set_layout(openvino.Layout("NCHW"))
    pixels.preprocess().convert_element_type(openvino.Type.f32).scale(255.0)
    return steps.build()
