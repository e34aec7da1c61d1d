# SPDX-License-Identifier: Apache-2.0
"""Fused detectors made ready to train: each convolution gets a normalisation again.

A fused convolution gives what its normalisation gave. Put behind it, a normalisation that changes
nothing would do so only while it runs: in training it would take mean and spread away, and with
them what the network knows. So the mean m and variance v of every convolution's output are
measured on images first, and its normalisation gets them as its statistics, the root of v as its
gain, and m with the convolution's bias as its bias. Then it changes nothing while it runs, and in
training as little as a batch differs from the images that were measured.

A merged convolution becomes a 3x3 and a 1x1 again, which share its centre evenly: a 1x1 of zeros
would have no spread to measure.
"""

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.network import Detector
from model.reparam import ConvNorm, RepConv


class Moments:
    """Mean and variance of each channel of what goes through."""

    def __init__(self, channels: int) -> None:
        self._count = 0
        self._sum = torch.zeros(channels, dtype=torch.float64)
        self._squares = torch.zeros(channels, dtype=torch.float64)

    def add(self, values: Tensor) -> None:
        """Count maps of B x C x H x W."""
        exact = values.detach().double()
        self._count += exact.numel() // exact.shape[1]
        self._sum += exact.sum(dim=(0, 2, 3)).cpu()
        self._squares += exact.square().sum(dim=(0, 2, 3)).cpu()

    def mean_and_variance(self) -> tuple[Tensor, Tensor]:
        mean = self._sum / self._count
        variance = (self._squares / self._count - mean.square()).clamp(min=0)
        return mean.float(), variance.float()


def expand(fused: Detector, unfused: Detector, images: Iterable[Tensor]) -> Detector:
    """Give an unfused detector the values of a fused one; both then find the same.

    Args:
        fused: What is deployed.
        unfused: Of the same size and widths; its values are lost.
        images: Batches in 0 to 1 to measure on, such as training will see.
    """
    _copy(fused, unfused)
    moments = _measure(unfused.eval(), images)
    with torch.no_grad():
        for unit, found in moments.items():
            _describe(unit, found)
    return unfused


def _copy(fused: nn.Module, unfused: nn.Module) -> None:
    """Copy every value, normalisations apart, which add the bias and do nothing else."""
    for (_, source), (_, target) in zip(
        fused.named_children(), unfused.named_children(), strict=True
    ):
        if isinstance(target, RepConv):
            _divide(source, target)
        elif isinstance(target, ConvNorm):
            _take(target, *_values(source))
        elif isinstance(target, nn.Conv2d):
            target.load_state_dict(source.state_dict())
        else:
            _copy(source, target)


def _divide(merged: nn.Module, rep: RepConv) -> None:
    weight, bias = _values(merged)
    point = weight[:, :, 1:2, 1:2] / 2
    _take(rep.square, weight - functional.pad(point, (1, 1, 1, 1)), bias)
    _take(rep.point, point, torch.zeros_like(bias))


def _values(fused: nn.Module) -> tuple[Tensor, Tensor]:
    assert isinstance(fused, ConvNorm)
    assert fused.conv.bias is not None
    return fused.conv.weight, fused.conv.bias


@torch.no_grad()
def _take(unit: ConvNorm, weight: Tensor, bias: Tensor) -> None:
    norm = unit.norm
    assert isinstance(norm, nn.BatchNorm2d)
    norm.reset_running_stats()
    unit.conv.weight.copy_(weight)
    norm.weight.fill_((1 + norm.eps) ** 0.5)
    norm.bias.copy_(bias)


@torch.no_grad()
def _measure(detector: Detector, images: Iterable[Tensor]) -> dict[ConvNorm, Moments]:
    units = [unit for unit in detector.modules() if isinstance(unit, ConvNorm)]
    moments = {unit: Moments(unit.conv.out_channels) for unit in units}
    hooks = [unit.conv.register_forward_hook(partial(_count, moments[unit])) for unit in units]
    for batch in images:
        detector.logits(batch)
    for hook in hooks:
        hook.remove()
    return moments


def _count(moments: Moments, _module: nn.Module, _inputs: object, output: Tensor) -> None:
    moments.add(output)


def _describe(unit: ConvNorm, found: Moments) -> None:
    norm = unit.norm
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, variance = found.mean_and_variance()
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.copy_((variance + norm.eps).sqrt())
    norm.bias.add_(mean)
