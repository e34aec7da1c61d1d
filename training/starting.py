# SPDX-License-Identifier: Apache-2.0
"""What a training starts from: random weights, or those of a file of ours.

Where the classes differ, the last layer of each class branch is made anew; a class that the file
knows by the same name keeps what it has there. Nothing else changes: the widths of a file's class
branch stay what they are.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from model.card import Card, read_card
from model.errors import ConfigError, WeightsError
from model.head import LEVELS, STRIDES, Branch, Head, start_scores
from model.network import Detector
from model.scales import SCALES, ScaleName
from model.weights import assign, blank, load_detector, read_tensors
from training.auxiliary import RELEASED, FormName
from training.expanding import expand
from training.pgi import GuidedDetector
from training.weights import load_guided

Form = FormName | Literal["released"]


def start(
    model: ScaleName | Path, form: Form, classes: Sequence[str], images: Iterable[Tensor]
) -> GuidedDetector:
    """Make the detector that a training starts with; random values follow from torch's seed.

    Args:
        model: A size, or a weights file.
        form: Its auxiliary branches; a file's own ones are kept if they are of this form.
        classes: Of the data.
        images: Batches in 0 to 1, looked at only if the file is a fused one.

    Raises:
        WeightsError: the file cannot be read, or holds what cannot be trained.
    """
    if not isinstance(model, Path):
        return GuidedDetector(Detector(SCALES[model], len(classes)), _chosen(form, model))
    card = read_card(model)
    guided = _from_file(model, card, form, images)
    rename_classes(guided, card.classes, classes)
    return guided.requires_grad_()


def rename_classes(guided: GuidedDetector, known: Sequence[str], classes: Sequence[str]) -> None:
    """Make every head tell other classes apart; those of the same name are kept."""
    if tuple(known) == tuple(classes):
        return
    for module in guided.modules():
        if isinstance(module, Head):
            for level, stride in zip(LEVELS, STRIDES, strict=True):
                branch = module.score[level]
                assert isinstance(branch, Branch)
                branch.out = _renamed(branch.out, stride, known, classes)
    guided.detector.num_classes = len(classes)


def freeze(guided: GuidedDetector, parts: Sequence[str]) -> list[nn.Module]:
    """Keep parts of the detector as they are; return their normalisations, which stay in eval.

    Raises:
        ConfigError: the detector has no such part.
    """
    norms: list[nn.Module] = []
    for name in parts:
        try:
            part = guided.detector.get_submodule(name)
        except AttributeError:
            known = ", ".join(child for child, _ in guided.detector.named_children())
            raise ConfigError(
                f"freeze: the detector has no part {name!r}; it has {known}, and theirs"
            ) from None
        part.requires_grad_(requires_grad=False)
        norms += [module for module in part.modules() if isinstance(module, nn.BatchNorm2d)]
    return norms


def _from_file(path: Path, card: Card, form: Form, images: Iterable[Tensor]) -> GuidedDetector:
    wanted = _chosen(form, card.scale)
    if card.form == "training":
        guided, _ = load_guided(path)
        return guided if guided.form == wanted else GuidedDetector(guided.detector, wanted)
    if card.form == "unfused":
        detector = blank(card)
        assign(detector, read_tensors(path), path)
        return GuidedDetector(detector, wanted)
    if card.form == "fused":
        return GuidedDetector(_expanded(path, card, images), wanted)
    raise WeightsError(
        f"{path}: a {card.form} artefact, which only runs; give the weights it was exported from"
    )


def _expanded(path: Path, card: Card, images: Iterable[Tensor]) -> Detector:
    fused, _ = load_detector(path)
    unfused = Detector(
        SCALES[card.scale],
        len(card.classes),
        class_width=card.class_width,
        box_groups=card.box_groups,
    )
    return expand(fused, unfused, images)


def _renamed(
    out: nn.Conv2d, stride: int, known: Sequence[str], classes: Sequence[str]
) -> nn.Conv2d:
    fresh = nn.Conv2d(out.in_channels, len(classes), 1)
    start_scores(fresh, stride)
    pairs = [(new, known.index(name)) for new, name in enumerate(classes) if name in known]
    assert fresh.bias is not None
    assert out.bias is not None
    with torch.no_grad():
        for new, old in pairs:
            fresh.weight[new] = out.weight[old]
            fresh.bias[new] = out.bias[old]
    return fresh


def _chosen(form: Form, scale: ScaleName) -> FormName:
    return RELEASED[scale] if form == "released" else form
