# SPDX-License-Identifier: Apache-2.0
"""What a training starts from: sizes, files of every form, other classes, frozen parts."""

from pathlib import Path

import pytest
import torch

from model.card import Card
from model.errors import ConfigError, WeightsError
from model.head import STRIDES
from model.network import Detector
from model.reparam import fuse
from model.scales import SCALES
from model.weights import save_weights
from tests.model.builders import make_card
from tests.training.builders import make_guided
from training.pgi import GuidedDetector
from training.starting import freeze, start
from training.weights import save_guided

CLASSES = make_card().classes


def card(form: str) -> Card:
    return make_card().model_copy(update={"form": form})


def images(count: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.rand(4, 3, 64, 64, generator=generator) for _ in range(count)]


@pytest.fixture
def fused(tmp_path: Path) -> tuple[Path, Detector]:
    detector = fuse(make_guided("T", num_classes=len(CLASSES)).detector)
    save_weights(tmp_path / "fused.safetensors", detector, card("fused"))
    return tmp_path / "fused.safetensors", detector


def largest(expected: torch.Tensor, found: torch.Tensor) -> float:
    return float(((expected - found).abs().max() / expected.abs().max()).detach())


def test_an_expanded_detector_finds_what_the_fused_one_found(fused: tuple[Path, Detector]) -> None:
    path, detector = fused
    guided = start(path, "none", CLASSES, images()).eval()
    unseen = torch.rand(2, 3, 96, 64)
    assert largest(detector(unseen), guided.detector(unseen)) < 1e-4
    assert largest(detector(unseen), fuse(guided.detector)(unseen)) < 1e-4


def test_an_expanded_detector_finds_it_in_training_too(fused: tuple[Path, Detector]) -> None:
    path, detector = fused
    batch = images(1)[0]
    guided = start(path, "none", CLASSES, [batch]).train()
    assert largest(detector(batch), guided.detector(batch)) < 1e-3


def test_every_parameter_of_an_expanded_detector_learns(fused: tuple[Path, Detector]) -> None:
    guided = start(fused[0], "none", CLASSES, images()).train()
    logits = guided(images(1)[0]).main
    torch.stack([level.box.square().sum() + level.score.square().sum() for level in logits]).sum(
    ).backward()  # fmt: skip
    still = [name for name, p in guided.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_a_file_in_training_goes_on_as_it_is(tmp_path: Path) -> None:
    guided = make_guided("T", num_classes=len(CLASSES))
    save_guided(tmp_path / "t", guided, card("training"))
    found = start(tmp_path / "t", "released", CLASSES, ())
    for name, tensor in guided.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name


def test_another_form_keeps_the_detector_and_makes_its_branches_anew(tmp_path: Path) -> None:
    guided = make_guided("T", num_classes=len(CLASSES))
    save_guided(tmp_path / "t", guided, card("training"))
    found = start(tmp_path / "t", "pfh", CLASSES, ())
    assert found.form == "pfh"
    for name, tensor in guided.detector.state_dict().items():
        assert torch.equal(found.detector.state_dict()[name], tensor), name


def test_unfused_weights_go_on_with_new_branches(tmp_path: Path) -> None:
    guided = make_guided("T", num_classes=len(CLASSES))
    save_weights(tmp_path / "t", guided.detector, card("unfused"))
    found = start(tmp_path / "t", "released", CLASSES, ())
    assert found.form == "fpn"
    assert all(p.requires_grad for p in found.parameters())
    for name, tensor in guided.detector.state_dict().items():
        assert torch.equal(found.detector.state_dict()[name], tensor), name


def test_classes_of_the_same_name_are_kept_and_others_start_anew(tmp_path: Path) -> None:
    guided = make_guided("T", num_classes=len(CLASSES))
    save_guided(tmp_path / "t", guided, card("training"))
    found = start(tmp_path / "t", "released", ("unheard of", CLASSES[2]), ())
    for before, after in zip(heads(guided), heads(found), strict=True):
        for level, stride in zip(("p3", "p4", "p5"), STRIDES, strict=True):
            old, new = before.score[level].out, after.score[level].out
            assert torch.equal(new.weight[1], old.weight[2])
            assert torch.equal(new.bias[1], old.bias[2])
            fresh = torch.log(torch.tensor(5 / 2 / (640 / stride) ** 2))
            assert new.bias[0].item() == pytest.approx(fresh.item())
            assert torch.equal(after.box[level].out.weight, before.box[level].out.weight)
    assert found.detector.num_classes == 2
    assert found(torch.rand(1, 3, 64, 64)).main[0].score.shape[1] == 2


def heads(guided: GuidedDetector) -> list[torch.nn.Module]:
    return [guided.detector.head, *(branch.head for branch in guided.auxiliary)]


def test_a_size_starts_from_its_released_form() -> None:
    guided = start("T", "released", ("a", "b"), ())
    assert guided.detector.scale == SCALES["T"]
    assert guided.form == "fpn"
    assert len(start("T", "none", ("a", "b"), ()).auxiliary) == 0


def test_a_frozen_part_stays_as_it_is() -> None:
    guided = make_guided("T")
    norms = freeze(guided, ("backbone", "neck.context"))
    frozen = [name for name, p in guided.named_parameters() if not p.requires_grad]
    assert frozen
    assert all(name.startswith(("detector.backbone.", "detector.neck.context.")) for name in frozen)
    assert len(norms) == sum(name.endswith("norm.weight") for name in frozen)


def test_an_unknown_part_is_named() -> None:
    with pytest.raises(ConfigError, match="no part 'spine'; it has backbone, linked, neck, head"):
        freeze(make_guided("T"), ("spine",))


def test_a_file_that_is_missing_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot read"):
        start(tmp_path / "none.safetensors", "released", CLASSES, ())
