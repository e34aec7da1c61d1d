# SPDX-License-Identifier: Apache-2.0
"""Names of published tensors, in every form of every size; no tensor here holds values."""

from pathlib import Path

import pytest
import torch

from model.errors import WeightsError
from model.layouts import Tensors, official, shown, split
from model.network import Detector
from model.reparam import fuse
from model.scales import SCALES, ScaleName
from tests.model.builders import published_tensors
from tests.model.foreign import (
    M_OR_C,
    T_OR_S,
    E,
    dense,
    mit_tensors,
    mit_training_tensors,
    training_tensors,
)

SOURCE = Path("source.pt")
KINDS: dict[ScaleName, str] = {"T": T_OR_S, "S": T_OR_S, "M": M_OR_C, "C": M_OR_C, "E": E}
COUNTS = {
    "T": (1339, 1772, 371, 500),
    "S": (1339, 1772, 371, 500),
    "M": (907, 1412, 279, 444),
    "C": (937, 1460, 289, 460),
    "E": (1811, 2172, 523, 636),
}
"""Tensors of the converted and of the training form, and of both once fused, as published."""


def converted(scale: ScaleName, *, fused: bool = False) -> Tensors:
    with torch.device("meta"):
        detector = Detector(SCALES[scale], 3)
    return published_tensors(fuse(detector) if fused else detector)


def failure(tensors: Tensors) -> str:
    with pytest.raises(WeightsError) as caught:
        split(SOURCE, official(SOURCE, tensors)[1])
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("fused", [False, True], ids=["unfused", "fused"])
@pytest.mark.parametrize("scale", SCALES)
def test_a_training_form_holds_the_converted_form_and_the_branch(
    scale: ScaleName, fused: bool
) -> None:
    plain = converted(scale, fused=fused)
    tensors = training_tensors(plain, KINDS[scale])
    assert (len(plain), len(tensors)) == COUNTS[scale][2 * fused : 2 * fused + 2]
    layout, same = official(SOURCE, tensors)
    assert str(layout) == "official names, training form"
    assert same == tensors
    branches = split(SOURCE, same)
    assert branches.main.keys() == plain.keys()
    assert all(branches.main[name] is plain[name] for name in plain)
    assert len(branches.auxiliary) == len(tensors) - len(plain)
    assert all(name in tensors for name in branches.auxiliary)


@pytest.mark.parametrize("scale", ["T", "S", "M"])
def test_mit_names_of_either_form_are_brought_under_official_ones(scale: ScaleName) -> None:
    plain = converted(scale)
    layout, same = official(SOURCE, mit_tensors(plain))
    assert str(layout) == "MIT names, without auxiliary"
    assert shapes(same) == shapes(plain)
    training = training_tensors(plain, KINDS[scale])
    layout, same = official(SOURCE, mit_training_tensors(training, KINDS[scale]))
    assert str(layout) == "MIT names, training form"
    assert shapes(same) == shapes(training)
    assert split(SOURCE, same).main.keys() == plain.keys()


def shapes(tensors: Tensors) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("mit", "name"),
    [
        ("0.conv.weight", "model.0.conv.weight"),
        ("0.bn.running_mean", "model.0.bn.running_mean"),
        ("2.conv1.conv.weight", "model.2.cv1.conv.weight"),
        ("3.conv.conv.weight", "model.3.cv1.conv.weight"),
        ("3.conv.bn.bias", "model.3.cv1.bn.bias"),
        ("3.conv2.bn.bias", "model.3.cv2.bn.bias"),
        ("4.conv2.0.conv1.conv.weight", "model.4.cv2.0.cv1.conv.weight"),
        ("4.conv3.1.bn.weight", "model.4.cv3.1.bn.weight"),
        ("4.conv2.0.bottleneck.1.conv1.conv2.bn.bias", "model.4.cv2.0.m.1.cv1.conv2.bn.bias"),
        ("4.conv3.0.bottleneck.0.conv2.conv.weight", "model.4.cv3.0.m.0.cv2.conv.weight"),
        ("9.conv5.conv.weight", "model.9.cv5.conv.weight"),
        ("22.heads.1.anchor_conv.0.conv.weight", "model.22.cv2.1.0.conv.weight"),
        ("22.heads.2.class_conv.2.bias", "model.22.cv3.2.2.bias"),
        ("22.heads.2.anc2vec.anc2vec.weight", "model.22.dfl.conv.weight"),
    ],
)
def test_a_mit_name_is_that_of_the_same_tensor(mit: str, name: str) -> None:
    marked = torch.arange(16.0)
    tensors = {"22.heads.0.class_conv.2.weight": torch.zeros(1), mit: marked}
    found = official(SOURCE, tensors)[1]
    assert found[name].flatten().equal(marked)
    assert len(found) == 2


def test_the_auxiliary_head_is_the_first_and_is_not_taken_for_the_main_one() -> None:
    tensors = training_tensors(converted("C"), M_OR_C)
    branches = split(SOURCE, tensors)
    assert branches.main["model.22.cv3.0.2.weight"] is tensors["model.38.cv5.0.2.weight"]
    assert branches.auxiliary["model.38.cv3.0.2.weight"] is tensors["model.38.cv3.0.2.weight"]


def test_a_dense_box_branch_is_that_of_ultralytics() -> None:
    plain = published_tensors(Detector(SCALES["T"], 3))
    layout, same = official(SOURCE, dense(plain))
    assert str(layout) == "ultralytics names, without auxiliary"
    assert same.keys() == plain.keys()


@pytest.mark.parametrize("prefix", ["module.model.", "model.model.", "ema.", "ema.model.", ""])
def test_what_the_network_was_wrapped_in_does_not_matter(prefix: str) -> None:
    plain = converted("T")
    wrapped = {name.replace("model.", prefix, 1): tensor for name, tensor in plain.items()}
    assert official(SOURCE, wrapped)[1] == plain


def test_of_two_copies_the_averaged_one_is_taken() -> None:
    plain = converted("T")
    copies = {f"ema.{name}": tensor for name, tensor in plain.items()}
    copies |= {f"model.{name}": torch.zeros(1) for name in plain}
    assert official(SOURCE, copies)[1] == plain
    del copies["model.model.0.conv.weight"]
    assert "averaged copy has no place for 0.conv.weight" in failure(copies)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(
            {"model.25.cv1.conv.weight": None},
            "its auxiliary branch lacks model.25.cv1.conv.weight",
            id="a part of the branch missing",
        ),
        pytest.param(
            {"model.29.cv2.0.0.conv.weight": None},
            "its auxiliary branch lacks model.29.cv2.0.0.conv.weight",
            id="a part of its head missing",
        ),
        pytest.param(
            {"model.24.conv.weight": torch.zeros(1)},
            "its auxiliary branch has no place for model.24.conv.weight",
            id="a layer too many",
        ),
        pytest.param(
            {"model.29.cv9.0.conv.weight": torch.zeros(1)},
            "its auxiliary branch has no place for model.29.cv9.0.conv.weight",
            id="something in the head",
        ),
        pytest.param(
            {"model.29.cv7.0.2.weight": torch.zeros(1)}, "it has three heads", id="three heads"
        ),
        pytest.param(
            {"model.30.cv3.0.2.weight": torch.zeros(1)}, "it has 2 heads", id="two head layers"
        ),
        pytest.param({"model.29.cv3.0.2.weight": None}, "it has 0 heads", id="no score of a class"),
        pytest.param({"teacher.0.a": torch.zeros(1)}, "no place for teacher.0.a", id="a prefix"),
        pytest.param({"loss": torch.zeros(1)}, "no place for loss", id="no number"),
        pytest.param(
            {"model.model.0.conv.weight": torch.zeros(1)},
            "several networks: 'model.model.', 'model.'",
            id="two networks",
        ),
        pytest.param(
            {"a\nb\x1b[31m" + "c" * 99: torch.zeros(1)}, "a?b?[31mccc", id="a name to fool a screen"
        ),
    ],
)
def test_what_is_no_training_form_is_named(
    change: dict[str, torch.Tensor | None], expected: str
) -> None:
    tensors = training_tensors(converted("T"), T_OR_S) | change
    assert expected in failure(
        {name: tensor for name, tensor in tensors.items() if tensor is not None}
    )


def test_a_double_head_elsewhere_is_named() -> None:
    tensors = {f"model.7.cv{part}.0.2.weight": torch.zeros(1) for part in (2, 3, 4, 5)}
    assert "its double head is layer 7, expected one of 29, 38, 49" in failure(tensors)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(
            {"22.heads.0.mask.weight": torch.zeros(1)}, "no place for 22.heads", id="head"
        ),
        pytest.param({"25.conv.weight": torch.zeros(1)}, "no place for 25.conv.weight", id="layer"),
        pytest.param({"31.heads.0.a": torch.zeros(1)}, "heads at layers 22, 31", id="heads"),
        pytest.param(
            {"22.heads.1.anc2vec.anc2vec.weight": torch.zeros(1, 16, 1, 1, 1)},
            "differs from another level's",
            id="distances of a level",
        ),
        pytest.param({"22.heads.1.anc2vec.bias": torch.zeros(1)}, "no place for", id="distances"),
    ],
)
def test_what_is_no_mit_file_is_named(change: Tensors, expected: str) -> None:
    assert expected in failure(mit_tensors(converted("T")) | change)


def test_a_name_from_a_file_is_printed_on_one_short_line() -> None:
    assert shown("a\r\nb\x1b[2J") == "a??b?[2J"
    assert len(shown("x" * 1000)) == 80
