# SPDX-License-Identifier: Apache-2.0
"""Official names of the tensors of a detector in training, its auxiliary branch included.

A published training form numbers the layers of its auxiliary branch among those of the detector,
and has both heads in one layer, the auxiliary one first: `cv2` and `cv3` are its branches, `cv4`
and `cv5` those of the main head. The detector's own names are those of the converted form,
numbered anew.
"""

from dataclasses import dataclass
from typing import Final

from model.importing import official_name, official_names
from model.layouts import MAIN_HEAD, TRAINING_FORMS
from training.auxiliary import FormName
from training.pgi import GuidedDetector


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbering:
    """Layer numbers of one published training form, beside those of `model/layouts.py`."""

    auxiliary: dict[str, int]
    """Modules of the auxiliary branch."""
    head: int
    """The layer of both heads."""


NUMBERINGS: Final[dict[tuple[FormName, int], Numbering]] = {
    ("fpn", 1): Numbering(
        auxiliary={
            "branch.neck.context": 22,
            "branch.neck.top_p4": 25,
            "branch.neck.top_p3": 28,
        },
        head=29,
    ),
    ("icn", 1): Numbering(
        auxiliary={
            "branch.linked.routes.0": 23,
            "branch.linked.routes.1": 24,
            "branch.linked.routes.2": 25,
            "branch.linked.backbone.stem_p1": 26,
            "branch.linked.backbone.stem_p2": 27,
            "branch.linked.backbone.block_p2": 28,
            "branch.linked.backbone.down_p3": 29,
            "branch.linked.backbone.block_p3": 31,
            "branch.linked.backbone.down_p4": 32,
            "branch.linked.backbone.block_p4": 34,
            "branch.linked.backbone.down_p5": 35,
            "branch.linked.backbone.block_p5": 37,
        },
        head=38,
    ),
    ("fpn", 2): Numbering(
        auxiliary={
            "branch.neck.context": 29,
            "branch.neck.top_p4": 32,
            "branch.neck.top_p3": 35,
        },
        head=49,
    ),
}
"""Published training forms, by their auxiliary branch and their number of backbones."""


def numbering_of(form: FormName, passes: int) -> Numbering:
    """Return the layer numbers of a published training form."""
    if (form, passes) not in NUMBERINGS:
        backbones = "one backbone" if passes == 1 else f"{passes} backbones"
        raise ValueError(f"no detector of {backbones} was published with the form {form!r}")
    return NUMBERINGS[form, passes]


def training_names(guided: GuidedDetector) -> dict[str, str]:
    """Return the published name of each of our tensors."""
    numbering = numbering_of(guided.form, guided.detector.scale.passes)
    main = {
        f"detector.{ours}": _training_name(converted, numbering.head)
        for ours, converted in official_names(guided.detector).items()
    }
    beside = {f"auxiliary.0.{ours}": official for ours, official in auxiliary_names(guided).items()}
    return main | beside


def auxiliary_names(guided: GuidedDetector) -> dict[str, str]:
    """Return the published name of each tensor of the auxiliary branch and its head."""
    numbering = numbering_of(guided.form, guided.detector.scale.passes)
    (auxiliary,) = guided.auxiliary
    layers = {**numbering.auxiliary, "head": numbering.head}
    return {ours: official_name(auxiliary, ours, layers) for ours in auxiliary.state_dict()}


def bins_names(numbering: Numbering) -> tuple[str, str]:
    """Return the names of two published constants, the distances 0 to 15. We store neither."""
    head = numbering.head
    return f"model.{head}.dfl.conv.weight", f"model.{head}.dfl2.conv.weight"


def _training_name(converted: str, head: int) -> str:
    """Bring the name of a converted form's tensor back into the training form."""
    form = TRAINING_FORMS[head]
    model, layer, child, *path = converted.split(".")
    if int(layer) == form.head:
        trained = next(theirs for theirs, ours in MAIN_HEAD.items() if ours == child)
        return ".".join((model, str(head), trained, *path))
    number = next(theirs for theirs, ours in form.main.items() if ours == int(layer))
    return ".".join((model, str(number), child, *path))
