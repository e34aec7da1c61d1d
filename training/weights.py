# SPDX-License-Identifier: Apache-2.0
"""Detectors in training on disk: everything that training needs to go on, in safetensors.

The card is that of the detector, in the form `training`; the file's metadata names the auxiliary
form beside it. To deploy, save `guided.detector` alone.
"""

from pathlib import Path
from typing import Final, cast

import torch
from safetensors.torch import save

from model.card import CARD_KEY, Card, read_card, read_header
from model.errors import WeightsError
from model.files import write_whole
from model.network import Detector
from model.scales import SCALES
from model.weights import assign, read_tensors
from training.auxiliary import FORMS, FormName
from training.pgi import GuidedDetector

FORM_KEY: Final = "auxiliary"
"""Entry of the file's metadata that names the auxiliary form."""


def save_guided(path: Path, guided: GuidedDetector, card: Card) -> None:
    """Write a detector and its auxiliary branches; the file appears whole or not at all."""
    tensors = {name: tensor.contiguous() for name, tensor in guided.state_dict().items()}
    training = card.model_copy(update={"form": "training"})
    metadata = {CARD_KEY: training.model_dump_json(), FORM_KEY: guided.form}
    write_whole(path, save(tensors, metadata), "these weights")


def load_guided(path: Path) -> tuple[GuidedDetector, Card]:
    """Build the detector and the branches of a file, ready to train on, with its weights."""
    card = read_card(path)
    if card.form != "training":
        raise WeightsError(
            f"{path}: {card.form} weights, without the auxiliary branch that training needs; "
            "give a file that training wrote"
        )
    guided = blank_guided(card, _form(path))
    assign(guided, read_tensors(path), path)
    return guided, card


def blank_guided(card: Card, form: FormName) -> GuidedDetector:
    """Build what a card describes, its tensors without values."""
    with torch.device("meta"):
        detector = Detector(
            SCALES[card.scale],
            len(card.classes),
            class_width=card.class_width,
            box_groups=card.box_groups,
        )
        return GuidedDetector(detector, form)


def _form(path: Path) -> FormName:
    form = read_header(path)["__metadata__"].get(FORM_KEY)
    if form not in FORMS:
        raise WeightsError(
            f"{path}: its auxiliary form is {form!r}; this version knows {', '.join(FORMS)}"
        )
    return cast(FormName, form)
