# SPDX-License-Identifier: Apache-2.0
"""Auxiliary branches, as data and as modules: what guides a detector while it trains.

A branch reads three maps that a detector made on the way, and gives three maps at the same
strides to a head of its own. What it learns is thrown away; its gradients are not. The forms are
those of table 4 of YOLOv9 (arXiv 2402.13616), under its names; decision 0012 says what was chosen
where the paper is silent. Lead-head-guided assignment (LHG) is not a form: it says which objects
a head learns from, not how the head is fed.

Axes: B batch, H and W height and width of the image in pixels.
"""

from dataclasses import dataclass
from typing import Final, Literal

from jaxtyping import Float
from torch import Tensor, nn

from model.network import Levels, LinkedBackbone, Neck, TopDown
from model.scales import Scale, ScaleName

FormName = Literal["none", "pfh", "fpn", "pan", "icn", "neck-icn", "fpn+neck-icn"]
Place = Literal["backbone", "neck"]
Through = Literal["nothing", "top-down", "both-ways", "second-backbone"]
Widths = tuple[int, int, int]
"""Channels of maps at strides 8, 16, 32."""


@dataclass(frozen=True, slots=True)
class Guide:
    """One auxiliary branch."""

    reads: Place
    """Whose maps it reads; of two linked backbones, those of the first."""
    through: Through
    """What lies between these maps and the branch's own head."""


FORMS: Final[dict[FormName, tuple[Guide, ...]]] = {
    "none": (),
    "pfh": (Guide("backbone", "nothing"),),
    "fpn": (Guide("backbone", "top-down"),),
    "pan": (Guide("backbone", "both-ways"),),
    "icn": (Guide("backbone", "second-backbone"),),
    "neck-icn": (Guide("neck", "second-backbone"),),
    "fpn+neck-icn": (Guide("backbone", "top-down"), Guide("neck", "second-backbone")),
}

RELEASED: Final[dict[ScaleName, FormName]] = {
    "T": "fpn",
    "S": "fpn",
    "M": "icn",
    "C": "icn",
    "E": "fpn",
}
"""What each size was published with."""


class DeepSupervision(nn.Module):
    """No branch at all: the head sits on the maps themselves (PFH)."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        self.widths = widths

    def forward(self, _: Tensor, levels: Levels) -> Levels:
        return levels


class OwnNeck(nn.Module):
    """A second neck on a backbone's maps: its way down alone (FPN), or both ways (PAN)."""

    def __init__(self, neck: TopDown, widths: Widths) -> None:
        super().__init__()
        self.neck = neck
        self.widths = widths

    def forward(self, _: Tensor, levels: Levels) -> Levels:
        return self.neck(levels)


class Reversible(nn.Module):
    """A second backbone that sees the image again, joined by the maps at strides 8 to 32 (ICN).

    images --------------------------+
    levels -> routes to strides 8 to 32 -> second backbone -> levels

    What the maps have lost on the way the branch has from the image, so that the gradients they
    get are those of what they can still help with.
    """

    def __init__(self, scale: Scale, inputs: Widths) -> None:
        super().__init__()
        self.linked = LinkedBackbone(scale, inputs)
        self.widths = backbone_widths(scale)

    def forward(self, images: Float[Tensor, "B 3 H W"], levels: Levels) -> Levels:
        _, _, p3, p4, p5 = self.linked(images, levels)
        return p3, p4, p5


def make_branch(scale: Scale, guide: Guide) -> DeepSupervision | OwnNeck | Reversible:
    """Wire the branch of one guide with random weights."""
    if guide.through == "second-backbone":
        return Reversible(scale, _widths_read(scale, guide))
    if guide.through == "nothing":
        return DeepSupervision(_widths_read(scale, guide))
    assert guide.reads == "backbone", "a neck is built for the maps of a backbone"
    if guide.through == "both-ways":
        return OwnNeck(Neck(scale), neck_widths(scale))
    top_p4, top_p3, _, _ = scale.neck
    return OwnNeck(TopDown(scale), (top_p3.out, top_p4.out, scale.context))


def backbone_widths(scale: Scale) -> Widths:
    """Return the channels of a backbone's maps at strides 8, 16, 32."""
    _, p3, p4, p5 = (block.out for block in scale.backbone)
    return p3, p4, p5


def neck_widths(scale: Scale) -> Widths:
    """Return the channels of a neck's maps at strides 8, 16, 32."""
    _, p3, p4, p5 = (block.out for block in scale.neck)
    return p3, p4, p5


def _widths_read(scale: Scale, guide: Guide) -> Widths:
    return backbone_widths(scale) if guide.reads == "backbone" else neck_widths(scale)
