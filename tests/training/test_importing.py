# SPDX-License-Identifier: Apache-2.0
"""Published training forms under their own names, brought under ours with their branch."""

from pathlib import Path

import pytest
import torch

from model.errors import WeightsError
from model.importing import official_names, renamed, take_bins
from model.network import Detector
from model.scales import SCALES, ScaleName
from model.weights import assign
from tests.training.builders import make_guided, training_tensors
from training.importing import guided_from_published
from training.pgi import GuidedDetector

SOURCE = Path("yolov9.pt")


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    return training_tensors(make_guided())


@pytest.mark.parametrize("scale", ["T", "M", "E"])
def test_every_tensor_comes_to_its_place(scale: ScaleName) -> None:
    guided = make_guided(scale)
    read, card = guided_from_published(SOURCE, training_tensors(guided))
    assert (card.scale, card.form, card.source) == (scale, "training", "yolov9.pt")
    assert card.classes == ("class_0", "class_1", "class_2")
    expected, found = guided.state_dict(), read.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("scale", ["T", "M", "E"])
def test_the_detector_equals_the_converted_form_bit_for_bit(scale: ScaleName) -> None:
    tensors = training_tensors(make_guided(scale))
    read, card = guided_from_published(SOURCE, tensors)
    expected = Detector(SCALES[scale], len(card.classes))
    converted = converted_from(tensors, scale)
    take_bins(SOURCE, converted, f"model.{HEADS[scale]}.dfl.conv.weight")
    assign(expected, renamed(SOURCE, converted, official_names(expected)), SOURCE)
    found = read.detector.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.state_dict().items())
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(read.eval().detector(images), expected.eval()(images))


# layer of the training form: layer of the converted form
CONVERTED = {
    "T": {layer: layer for layer in range(22)} | {29: 22},
    "M": {layer + 1: layer for layer in range(22)} | {38: 22},
    "E": {layer: layer for layer in range(29)}
    | {layer + 7: layer for layer in range(29, 42)}
    | {49: 42},
}
HEADS = {"T": 22, "M": 22, "E": 42}
HEAD_CHILDREN = {"cv4": "cv2", "cv5": "cv3", "dfl2": "dfl"}


def converted_from(tensors: dict[str, torch.Tensor], scale: ScaleName) -> dict[str, torch.Tensor]:
    """Cut off the auxiliary branch as the authors' notebook does, by numbers of layers."""
    converted = {}
    for name, tensor in tensors.items():
        model, layer, child, *path = name.split(".")
        place = CONVERTED[scale].get(int(layer))
        if place == HEADS[scale]:
            if child not in HEAD_CHILDREN:
                continue
            child = HEAD_CHILDREN[child]
        if place is not None:
            converted[".".join((model, str(place), child, *path))] = tensor
    return converted


def test_training_goes_on_from_what_was_read(published: dict[str, torch.Tensor]) -> None:
    guided, _ = guided_from_published(SOURCE, published)
    assert guided.training
    assert all(parameter.requires_grad for parameter in guided.parameters())


def test_options_are_read_from_the_shapes() -> None:
    detector = Detector(SCALES["T"], 2, class_width=128, box_groups=1)
    tensors = training_tensors(GuidedDetector(detector, "fpn"))
    _, card = guided_from_published(SOURCE, tensors, classes=("cat", "dog"))
    assert (card.class_width, card.box_groups) == (128, 1)
    assert card.classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({"model.25.cv1.bn.bias": None}, "lacks model.25.cv1.bn.bias", id="missing"),
        pytest.param(
            {"model.30.cv1.conv.weight": torch.zeros(1)},
            "has no place for model.30.cv1.conv.weight",
            id="left",
        ),
        pytest.param(
            {"model.28.cv1.bn.bias": torch.zeros(3)}, "expected float32 (64,)", id="a shape"
        ),
        pytest.param(
            {"model.29.dfl.conv.weight": torch.zeros(1, 16, 1, 1)},
            "model.29.dfl.conv.weight is not 0 to 15",
            id="other bins of the auxiliary head",
        ),
        pytest.param(
            {"model.29.dfl2.conv.weight": torch.zeros(1, 16, 1, 1)},
            "model.29.dfl2.conv.weight is not 0 to 15",
            id="other bins of the main head",
        ),
        pytest.param(
            {"model.8.cv4.conv.weight": torch.zeros(7, 256, 1, 1)},
            "its backbone is of no known size",
            id="an unknown size",
        ),
        pytest.param({"model.29.cv5.0.2.weight": torch.zeros(3)}, "lacks", id="a flat tensor"),
    ],
)
def test_every_tensor_must_match(
    published: dict[str, torch.Tensor], change: dict[str, torch.Tensor | None], expected: str
) -> None:
    tensors = {name: tensor for name, tensor in (published | change).items() if tensor is not None}
    assert expected in failure(tensors)


def test_a_converted_form_is_refused_with_the_way_out(published: dict[str, torch.Tensor]) -> None:
    message = failure(converted_from(published, "T"))
    assert "lacks model.29.cv5.0.2.weight" in message
    assert "sightline import" in message


def test_other_tensors_are_refused() -> None:
    assert "no training form of this family" in failure({"weight": torch.zeros(2)})


def test_a_wrong_number_of_class_names_is_refused(published: dict[str, torch.Tensor]) -> None:
    with pytest.raises(WeightsError, match="got 2 names for its 3 classes"):
        guided_from_published(SOURCE, published, classes=("cat", "dog"))


def failure(tensors: dict[str, torch.Tensor]) -> str:
    with pytest.raises(WeightsError) as caught:
        guided_from_published(SOURCE, tensors)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)
