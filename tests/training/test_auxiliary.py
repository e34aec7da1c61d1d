# SPDX-License-Identifier: Apache-2.0
"""Every form of auxiliary branch: what it reads, what it gives, where its gradients go."""

import pytest
import torch

from model.network import Detector
from model.scales import SCALES, ScaleName
from tests.training.builders import make_guided, summed
from training.auxiliary import FORMS, RELEASED, FormName, make_branch


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_logits_of_each_branch_at_three_strides(form: FormName) -> None:
    guided = make_guided(form=form).eval()
    with torch.inference_mode():
        logits = guided(torch.rand(2, 3, 64, 96))
    assert len(logits.auxiliary) == len(FORMS[form])
    for head in (logits.main, *logits.auxiliary):
        assert [level.box.shape for level in head] == [(2, 64, 8, 12), (2, 64, 4, 6), (2, 64, 2, 3)]
        assert [level.score.shape for level in head] == [(2, 3, 8, 12), (2, 3, 4, 6), (2, 3, 2, 3)]


@pytest.mark.parametrize("form", [form for form in FORMS if form != "none"])
def test_gradients_of_each_branch_alone_reach_the_backbone(form: FormName) -> None:
    """A branch that reads the neck reaches the backbone through it; no branch the main head."""
    guided = make_guided(form=form)
    images = torch.rand(2, 3, 64, 64)
    for place, guide in enumerate(FORMS[form]):
        guided.zero_grad()
        logits = guided(images)
        summed(logits._replace(main=logits.auxiliary[place], auxiliary=())).backward()
        detector = guided.detector
        assert reached(detector.backbone) == {True}
        assert reached(detector.neck) == {guide.reads == "neck"}
        assert reached(detector.head) == {False}
        assert reached(guided.auxiliary[place]) == {True}


def reached(module: torch.nn.Module) -> set[bool]:
    """Whether the parameters of a module have gradients, and ones other than zero."""
    return {
        parameter.grad is not None and bool(parameter.grad.any())
        for parameter in module.parameters()
    }


@pytest.mark.parametrize("scale", SCALES)
def test_a_branch_says_how_wide_its_maps_are(scale: ScaleName) -> None:
    with torch.device("meta"):
        images = torch.zeros(1, 3, 64, 64)
        backbone, neck = Detector(SCALES[scale], 2).pyramid(images)
        for guide in dict.fromkeys(guide for guides in FORMS.values() for guide in guides):
            branch = make_branch(SCALES[scale], guide)
            maps = branch(images, backbone if guide.reads == "backbone" else neck)
            assert tuple(level.shape[1] for level in maps) == branch.widths
            assert [tuple(level.shape[2:]) for level in maps] == [(8, 8), (4, 4), (2, 2)]


def test_a_second_backbone_sees_the_image_itself() -> None:
    """Its maps follow the image where the detector's maps are held fixed; a neck's do not."""
    detector = make_guided(form="none").detector.eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        levels = detector.pyramid(images)[0]
        for form, follows in (("icn", True), ("fpn", False), ("pan", False), ("pfh", False)):
            branch = make_branch(SCALES["T"], FORMS[form][0]).eval()
            same = [
                torch.equal(*pair)
                for pair in zip(branch(images, levels), branch(1 - images, levels), strict=True)
            ]
            assert same == [not follows] * 3


def test_every_size_has_a_released_form() -> None:
    assert RELEASED.keys() == SCALES.keys()
