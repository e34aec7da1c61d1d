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
from training.auxiliary import FormName
from training.pgi import GuidedDetector


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbering:
    """Layer numbers of one published training form."""

    shifts: tuple[tuple[int, int], ...]
    """A layer of the converted form, and what is added to its number and those after it."""
    auxiliary: dict[str, int]
    """Modules of the auxiliary branch."""
    head: int
    """The layer of both heads."""

    def renumbered(self, layer: int) -> int:
        """Return the number of a layer that has another one in the converted form."""
        return layer + next(added for first, added in reversed(self.shifts) if layer >= first)


NUMBERINGS: Final[dict[tuple[FormName, int], Numbering]] = {
    ("fpn", 1): Numbering(
        shifts=((0, 0), (22, 7)),
        auxiliary={
            "branch.neck.context": 22,
            "branch.neck.top_p4": 25,
            "branch.neck.top_p3": 28,
        },
        head=29,
    ),
    ("icn", 1): Numbering(
        shifts=((0, 1), (22, 16)),
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
        shifts=((0, 0), (29, 7)),
        auxiliary={
            "branch.neck.context": 29,
            "branch.neck.top_p4": 32,
            "branch.neck.top_p3": 35,
        },
        head=49,
    ),
}
"""Published training forms, by their auxiliary branch and their number of backbones."""

MAIN_HEAD: Final = {"cv2": "cv4", "cv3": "cv5"}
"""Branches of the only head of a converted form, and of the main head of a training form."""


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
        f"detector.{ours}": _renumbered(converted, numbering)
        for ours, converted in official_names(guided.detector).items()
    }
    (auxiliary,) = guided.auxiliary
    layers = {**numbering.auxiliary, "head": numbering.head}
    beside = {
        f"auxiliary.0.{ours}": official_name(auxiliary, ours, layers)
        for ours in auxiliary.state_dict()
    }
    return main | beside


def bins_names(numbering: Numbering) -> tuple[str, str]:
    """Return the names of two published constants, the distances 0 to 15. We store neither."""
    head = numbering.head
    return f"model.{head}.dfl.conv.weight", f"model.{head}.dfl2.conv.weight"


def _renumbered(converted: str, numbering: Numbering) -> str:
    model, layer, child, *path = converted.split(".")
    number = numbering.renumbered(int(layer))
    if number == numbering.head:
        child = MAIN_HEAD[child]
    return ".".join((model, str(number), child, *path))
