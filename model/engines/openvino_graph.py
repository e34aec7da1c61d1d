# SPDX-License-Identifier: Apache-2.0
"""The graph that OpenVINO compiles: uint8 pixels in, predictions out."""

from pathlib import Path

import openvino
import torch
from openvino.preprocess import PrePostProcessor

from model.weights import load_detector


def build_graph(weights: Path, input_shape: tuple[int, int, int, int]) -> openvino.Model:
    """Convert the detector in a weights file for one shape of uint8 images, B H W 3."""
    detector, _ = load_detector(weights)
    batch, height, width, _ = input_shape
    example = torch.zeros(batch, 3, height, width)
    with torch.inference_mode():
        traced = torch.jit.trace(detector, example, check_trace=False)
    model = openvino.convert_model(
        traced, example_input=example, input=[openvino.PartialShape(list(example.shape))]
    )
    steps = PrePostProcessor(model)
    pixels = steps.input()
    pixels.tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    pixels.model().set_layout(openvino.Layout("NCHW"))
    pixels.preprocess().convert_element_type(openvino.Type.f32).scale(255.0)
    return steps.build()
