# SPDX-License-Identifier: Apache-2.0
"""Published training forms brought under our names, auxiliary branch and all."""

from pathlib import Path

from model.card import Card
from model.errors import WeightsError
from model.importing import bins_name, describe, official_names, renamed, take_bins
from model.outputs import refuse_existing
from model.published import Published, read_published
from model.scales import SCALES
from model.weights import assign
from training.auxiliary import RELEASED
from training.official_names import auxiliary_names, bins_names, numbering_of
from training.pgi import GuidedDetector
from training.weights import blank_guided, save_guided


def import_guided(
    source: Path, output: Path, *, licence: str = "", overwrite: bool = False
) -> Card:
    """Convert a published training form to ours, to train on; return the card of the result.

    Args:
        source: A checkpoint of any published layout that has an auxiliary branch.
        output: The file to write.
        licence: The licence of a file that does not state one itself.
        overwrite: Whether an existing `output` is replaced.

    Raises:
        WeightsError: it is damaged, of no known layout, or has no auxiliary branch.
    """
    refuse_existing(output, overwrite=overwrite)
    guided, card = guided_from_published(read_published(source), licence)
    save_guided(output, guided, card)
    return card


def guided_from_published(published: Published, licence: str = "") -> tuple[GuidedDetector, Card]:
    """Build the detector in training that a published file describes, with its values.

    Every tensor is used and every parameter is filled, or the error names what is left.
    """
    source, branches = published.path, published.branches()
    if not branches.auxiliary:
        raise WeightsError(
            f"{source}: {published.layout}, got no auxiliary branch to train on with; "
            "leave out --auxiliary to import what is deployed"
        )
    card = describe(published, branches.main, licence)
    if card.form == "fused":
        raise WeightsError(
            f"{source}: a fused training form, whose normalisations are gone, cannot be trained; "
            "leave out --auxiliary to import what is deployed"
        )
    scale, form = SCALES[card.scale], RELEASED[card.scale]
    guided = blank_guided(card, form)
    auxiliary_bins, _ = bins_names(numbering_of(form, scale.passes))
    take_bins(source, branches.main, bins_name(scale))
    take_bins(source, branches.auxiliary, auxiliary_bins)
    main = renamed(source, branches.main, official_names(guided.detector))
    beside = renamed(source, branches.auxiliary, auxiliary_names(guided))
    tensors = {f"detector.{name}": tensor for name, tensor in main.items()}
    tensors |= {f"auxiliary.0.{name}": tensor for name, tensor in beside.items()}
    assign(guided, tensors, source)
    return guided, card.model_copy(update={"form": "training"})
