# SPDX-License-Identifier: Apache-2.0
"""Every form of auxiliary branch: what it reads, what it gives, where its gradients go."""

from dataclasses import replace

import pytest
import torch

from model.network import Detector, LinkedBackbone, Neck, TopDown
from model.scales import SCALES, ScaleName, even
from tests.training.builders import make_guided, summed
from training.auxiliary import FORMS, RELEASED, FormName, make_branch
from training.pgi import GuidedLogits


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_logits_of_each_branch_at_three_strides(form: FormName) -> None:
    guided = make_guided(form=form).eval()
    with torch.inference_mode():
        logits = guided(torch.rand(2, 3, 64, 96))
    assert len(logits.auxiliary) == len(FORMS[form])
    for head in (logits.main, *logits.auxiliary):
        assert [level.box.shape for level in head] == [(2, 64, 8, 12), (2, 64, 4, 6), (2, 64, 2, 3)]
        assert [level.score.shape for level in head] == [(2, 3, 8, 12), (2, 3, 4, 6), (2, 3, 2, 3)]


# form: for each branch, whether it reads the neck, and what lies before its head
TABLE_4: dict[FormName, list[tuple[bool, type[torch.nn.Module] | None]]] = {
    "none": [],
    "pfh": [(False, None)],
    "fpn": [(False, TopDown)],
    "pan": [(False, Neck)],
    "icn": [(False, LinkedBackbone)],
    "neck-icn": [(True, LinkedBackbone)],
    "fpn+neck-icn": [(False, TopDown), (True, LinkedBackbone)],
}


@pytest.mark.parametrize(("form", "branches"), TABLE_4.items(), ids=TABLE_4)
def test_each_branch_alone_teaches_the_backbone_through_what_it_reads(
    form: FormName, branches: list[tuple[bool, type[torch.nn.Module] | None]]
) -> None:
    guided = make_guided(form=form)
    detector, images = guided.detector, torch.rand(2, 3, 64, 64)
    assert len(guided.auxiliary) == len(branches)
    for auxiliary, (reads_neck, between) in zip(guided.auxiliary, branches, strict=True):
        guided.zero_grad()
        backbone, neck = detector.pyramid(images)
        summed(GuidedLogits(auxiliary(images, backbone, neck), ())).backward()
        assert reached(detector.backbone) == {True}
        assert reached(detector.neck) == {reads_neck}
        assert reached(detector.head) == {False}
        assert reached(auxiliary) == {True}
        parts = [type(part) for part in auxiliary.branch.children()]
        assert parts == ([between] if between else [])


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


def test_a_coarser_map_joins_every_finer_stage_of_the_second_backbone() -> None:
    """By hand, as the published layers of M and C are wired."""
    scale = replace(SCALES["M"], backbone=even(8, 16, 24, 32))
    branch = make_branch(scale, FORMS["icn"][0]).eval()
    images, levels = torch.rand(1, 3, 64, 64), maps_like(16, 24, 32)
    second = branch.linked.backbone
    with torch.inference_mode():
        routes = [route(x) for route, x in zip(branch.linked.routes, levels, strict=True)]
        (p3_3,), (p4_3, p4_4), (p5_3, p5_4, p5_5) = routes
        p2 = second.block_p2(second.stem_p2(second.stem_p1(images)))
        p3 = second.block_p3(second.down_p3(p2) + p3_3 + larger(p4_3, 2) + larger(p5_3, 4))
        p4 = second.block_p4(second.down_p4(p3) + p4_4 + larger(p5_4, 2))
        p5 = second.block_p5(second.down_p5(p4) + p5_5)
        for found, expected in zip(branch(images, levels), (p3, p4, p5), strict=True):
            torch.testing.assert_close(found, expected)


def maps_like(*widths: int) -> tuple[torch.Tensor, ...]:
    """Maps at strides 8, 16, 32 of an image of 64 pixels a side."""
    return tuple(torch.rand(1, width, 8 >> place, 8 >> place) for place, width in enumerate(widths))


def larger(x: torch.Tensor, times: int) -> torch.Tensor:
    """Each cell as a square of equal cells."""
    return x.repeat_interleave(times, dim=2).repeat_interleave(times, dim=3)


def test_every_size_has_a_released_form() -> None:
    assert RELEASED.keys() == SCALES.keys()
