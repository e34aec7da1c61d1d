# SPDX-License-Identifier: Apache-2.0
"""Programmable gradient information: a detector, and the auxiliary branches that guide it.

images -> detector -+-> main head                     deployed
                    +-> branch -> auxiliary head      thrown away after training

The branches read the maps that the detector makes for itself, and nothing is detached: their
gradients reach the layers both share. The detector knows nothing of it. `guided.detector` is what
is deployed, unchanged, and its tensors are named as if it had been trained alone.

Paper: YOLOv9, arXiv 2402.13616, section 4.1. Axes: B batch, H and W height and width of the image
in pixels.
"""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from model.head import LEVELS, Branch, Head, Logits
from model.network import Detector, Levels
from training.auxiliary import FORMS, FormName, Guide, Widths, make_branch


class GuidedLogits(NamedTuple):
    """What every head says about the same images."""

    main: Logits
    auxiliary: tuple[Logits, ...]
    """One for each branch, in the order of the form."""


class Auxiliary(nn.Module):
    """One branch and its head."""

    def __init__(self, detector: Detector, guide: Guide) -> None:
        super().__init__()
        self.guide = guide
        self.branch = make_branch(detector.scale, guide)
        self.head = _head_like(detector.head, self.branch.widths)

    def forward(self, images: Float[Tensor, "B 3 H W"], backbone: Levels, neck: Levels) -> Logits:
        levels = backbone if self.guide.reads == "backbone" else neck
        return self.head(self.branch(images, levels))


class GuidedDetector(nn.Module):
    """A detector in training: its own logits, and those of the branches beside it."""

    def __init__(self, detector: Detector, form: FormName) -> None:
        """Put new auxiliary branches beside a detector.

        Args:
            detector: Trained or new; it is kept, not copied.
            form: A row of `FORMS`; `RELEASED` has the one of each size.
        """
        super().__init__()
        self.form = form
        self.detector = detector
        self.auxiliary = nn.ModuleList(Auxiliary(detector, guide) for guide in FORMS[form])

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> GuidedLogits:
        backbone, neck = self.detector.pyramid(images)
        return GuidedLogits(
            main=self.detector.head(neck),
            auxiliary=tuple(branch(images, backbone, neck) for branch in self.auxiliary),
        )


def _head_like(main: Head, inputs: Widths) -> Head:
    """Return a head for other maps: its class branch no narrower than the main one or its input.

    With the class widths of the released main heads this is the published rule for auxiliary ones.
    """
    box, score = main.box[LEVELS[0]], main.score[LEVELS[0]]
    assert isinstance(box, Branch)
    assert isinstance(score, Branch)
    return Head(
        inputs,
        score.out.out_channels,
        class_width=max(inputs[0], score.out.in_channels),
        box_groups=4 if box.out.groups == 4 else 1,
    )
