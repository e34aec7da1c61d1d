# SPDX-License-Identifier: Apache-2.0
"""From a training's weights to the file that is shipped: half the bytes, and a card that tells all.

Only what our own trainings made from random weights may be shipped: weights that were imported, or
trained on from imported ones, belong to others, whatever their licence. The card of a training
says what it began with, and so does that of the training before.
"""

import json
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from model.average_precision import FIGURES
from model.card import Card, read_card
from model.config import describe_faults
from model.errors import ConfigError, WeightsError, unreadable
from model.outputs import refuse_existing
from model.released import Measured, Released, ReleaseNotes
from model.weights import load_detector, save_weights, weights_digest

FIELDS: Final = {figure: figure.lower() for figure in FIGURES}
"""Figures of an evaluation, and what the card calls them."""


def ship(
    weights: Path, notes: ReleaseNotes, evaluation: Path, output: Path, *, overwrite: bool = False
) -> Card:
    """Write weights of ours in float16 with a whole card, and return the card.

    Args:
        weights: What a training deployed.
        notes: What no program can find out.
        evaluation: What `sightline evaluate --json` printed, of these weights or of the file that
            was shipped from them before.
        output: The file to write, named after the model.
        overwrite: Whether an existing `output` is replaced.

    Raises:
        WeightsError: they are not ours to ship, or the file cannot be written.
        ConfigError: the evaluation is not one of these weights.
    """
    refuse_existing(output, overwrite=overwrite)
    if output.name != f"{notes.name}.safetensors":
        raise ConfigError(
            f"{output}: a model is found by its name; call it {notes.name}.safetensors"
        )
    card = read_card(weights)
    refuse_foreign(weights, card)
    digest = weights_digest(weights)
    measured = read_measured(evaluation, digest, card.classes)
    detector, _ = load_detector(weights)
    shipped = card.model_copy(
        update={
            "form": "fused",
            "dtype": "float16",
            "source_sha256": digest,
            "licence": notes.licence,
            "released": Released(**notes.model_dump(), measured=measured),
        }
    )
    save_weights(output, detector, shipped)
    return shipped


def refuse_foreign(weights: Path, card: Card) -> None:
    """Refuse weights that others made, and weights that were trained on from such.

    Raises:
        WeightsError: it says what the card lacks.
    """
    if card.trained is None or card.source_layout:
        raise WeightsError(
            f"{weights}: not shipped: its card names no training of ours "
            f"(source {card.source}, licence {card.licence}); imported weights are never shipped"
        )
    if not card.trained.from_random():
        raise WeightsError(
            f"{weights}: not shipped: it was trained on from weights of which no training of ours "
            "from random weights is known; train from a size, or from weights that were"
        )
    if card.released is not None:
        raise WeightsError(f"{weights}: was shipped already; give the weights it was made from")


def read_measured(path: Path, digest: str, classes: tuple[str, ...]) -> Measured:
    """Return what an evaluation of weights with this digest found.

    Raises:
        ConfigError: it is another file's, or lacks what a card must say.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except OSError as failure:
        raise unreadable(path, failure) from None
    except ValueError:
        raise _no_evaluation(path, "it is not JSON") from None
    try:
        weights = tree["weights"]
        of_classes = {name: _figures(row) for name, row in tree["classes"].items()}
        values = {
            "split": tree["split"],
            "images": tree["images"],
            "protocol": tree["protocol"],
            "image_size": tree["image_size"],
            "overall": _figures(tree),
            "classes": of_classes,
            "calibration": tree["calibration"],
        }
        measured_on = (weights["sha256"], weights["source_sha256"])
    except (LookupError, TypeError, AttributeError) as fault:
        raise _no_evaluation(path, f"it lacks {fault}") from None
    if digest not in measured_on:
        raise _no_evaluation(path, f"it is of the weights {measured_on[0]}, these are {digest}")
    if set(of_classes) != set(classes):
        raise _no_evaluation(path, f"it is of the classes {', '.join(of_classes) or 'none'}")
    try:
        return Measured.model_validate(values)
    except ValidationError as invalid:
        raise _no_evaluation(path, " ".join(describe_faults(invalid).split())) from None


def _figures(row: dict[str, Any]) -> dict[str, float]:
    return {field: row[figure] for figure, field in FIELDS.items()}


def _no_evaluation(path: Path, why: str) -> ConfigError:
    return ConfigError(
        f"{path}: no evaluation of these weights: {why}; "
        "make one with: sightline evaluate WEIGHTS --data DATA --split test --json"
    )
