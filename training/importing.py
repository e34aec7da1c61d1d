# SPDX-License-Identifier: Apache-2.0
"""Published training forms brought under our names, auxiliary branch and all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from torch import Tensor

from model.card import Card
from model.errors import WeightsError
from model.importing import layers_of, renamed, take_bins
from model.scales import SCALES, Scale, ScaleName
from model.weights import assign
from training.auxiliary import RELEASED
from training.official_names import Numbering, bins_names, numbering_of, training_names
from training.pgi import GuidedDetector
from training.weights import blank_guided

STAGES: Final = ("p2", "p3", "p4", "p5")


def guided_from_published(
    source: Path, tensors: Mapping[str, Tensor], classes: tuple[str, ...] = ()
) -> tuple[GuidedDetector, Card]:
    """Build the detector in training that published tensors describe, with their values.

    Every tensor is used and every parameter is filled, or the error names what is left.

    Args:
        source: The file the tensors are from, for errors and the card.
        tensors: Under official names of the training form, numbers with a point in float32.
        classes: Names of the classes; numbered ones if none are given.
    """
    card = _describe(source, tensors, classes)
    form = RELEASED[card.scale]
    guided = blank_guided(card, form)
    left = dict(tensors)
    for name in bins_names(numbering_of(form, SCALES[card.scale].passes)):
        take_bins(source, left, name)
    assign(guided, renamed(source, left, training_names(guided)), source)
    return guided, card


def _describe(source: Path, tensors: Mapping[str, Tensor], classes: tuple[str, ...]) -> Card:
    """Read size and options from the shapes."""
    scale, numbering = _recognise(source, tensors)
    num_classes, class_width, *_ = _shape(source, tensors, f"model.{numbering.head}.cv5.0.2.weight")
    outputs, inputs, *_ = _shape(source, tensors, f"model.{numbering.head}.cv4.0.1.conv.weight")
    if classes and len(classes) != num_classes:
        raise WeightsError(f"{source}: got {len(classes)} names for its {num_classes} classes")
    return Card(
        scale=scale,
        classes=classes or tuple(f"class_{place}" for place in range(num_classes)),
        class_width=class_width,
        box_groups=1 if inputs == outputs else 4,
        form="training",
        source=source.name,
    )


def _recognise(source: Path, tensors: Mapping[str, Tensor]) -> tuple[ScaleName, Numbering]:
    """Recognise the size by the widths of its backbone, the first if there are two."""
    for name, scale in SCALES.items():
        numbering = numbering_of(RELEASED[name], scale.passes)
        widths = tuple(block.out for block in scale.backbone)
        if _backbone_widths(tensors, scale, numbering) == widths:
            return name, numbering
    raise WeightsError(
        f"{source}: no training form of this family: its backbone is of no known size"
    )


def _backbone_widths(
    tensors: Mapping[str, Tensor], scale: Scale, numbering: Numbering
) -> tuple[int, ...]:
    """Read the widths where a training form of this size has them."""
    converted = layers_of(scale)
    layers = [numbering.renumbered(converted[f"backbone.block_{stage}"]) for stage in STAGES]
    names = [f"model.{layer}.cv4.conv.weight" for layer in layers]
    return tuple(len(tensors[name]) for name in names if name in tensors and tensors[name].ndim)


def _shape(source: Path, tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    if name not in tensors or tensors[name].ndim != 4:
        raise WeightsError(
            f"{source}: no training form of this family: it lacks {name}; "
            "weights without an auxiliary branch are read by: sightline import"
        )
    return tuple(tensors[name].shape)
