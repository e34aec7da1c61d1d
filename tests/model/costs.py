# SPDX-License-Identifier: Apache-2.0
"""What a detector costs, counted on the network itself."""

import torch

from model.network import Detector


def num_parameters(detector: Detector) -> int:
    return sum(parameter.numel() for parameter in detector.parameters())


def gflops(detector: Detector) -> float:
    """Twice the multiplications of the convolutions of a detector without values, for 640 x 640."""
    total = 0

    def count(conv: torch.nn.Conv2d, _: object, output: torch.Tensor) -> None:
        nonlocal total
        total += 2 * conv.weight.numel() * output.shape[-2] * output.shape[-1]

    convolutions = [part for part in detector.modules() if isinstance(part, torch.nn.Conv2d)]
    hooks = [convolution.register_forward_hook(count) for convolution in convolutions]
    with torch.inference_mode():
        detector(torch.zeros(1, 3, 640, 640, device="meta"))
    for hook in hooks:
        hook.remove()
    return total / 1e9
