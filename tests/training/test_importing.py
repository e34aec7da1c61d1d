# SPDX-License-Identifier: Apache-2.0
"""Published training forms under their own names, brought under ours with their branch."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model.card import Card
from model.errors import WeightsError
from model.importing import official_names, renamed, take_bins
from model.network import Detector
from model.published import read_published
from model.reparam import fuse
from model.scales import SCALES, ScaleName
from model.weights import assign, load_detector
from sightline import main
from tests.training.builders import make_guided, training_tensors
from training.importing import guided_from_published
from training.pgi import GuidedDetector
from training.weights import load_guided

Read = Callable[[dict[str, torch.Tensor]], tuple[GuidedDetector, Card]]


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    return training_tensors(make_guided())


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Writes tensors to a file and reads the file."""

    def read_tensors(tensors: dict[str, torch.Tensor]) -> tuple[GuidedDetector, Card]:
        path = tmp_path / "yolov9.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
        return guided_from_published(read_published(path))

    return read_tensors


@pytest.mark.parametrize("scale", ["T", "M", "E"])
def test_every_tensor_comes_to_its_place(scale: ScaleName, read: Read) -> None:
    guided = make_guided(scale)
    again, card = read(training_tensors(guided))
    assert (card.scale, card.form, card.source) == (scale, "training", "yolov9.safetensors")
    assert card.classes == ("class_0", "class_1", "class_2")
    assert card.source_layout == "official names, training form"
    assert len(card.source_sha256) == 64
    expected, found = guided.state_dict(), again.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("scale", ["T", "M", "E"])
def test_the_detector_equals_the_converted_form_bit_for_bit(scale: ScaleName, read: Read) -> None:
    tensors = training_tensors(make_guided(scale))
    again, card = read(tensors)
    expected = Detector(SCALES[scale], len(card.classes))
    converted = converted_from(tensors, scale)
    take_bins(Path("x"), converted, f"model.{HEADS[scale]}.dfl.conv.weight")
    assign(expected, renamed(Path("x"), converted, official_names(expected)), Path("x"))
    found = again.detector.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.state_dict().items())
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(again.eval().detector(images), expected.eval()(images))


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


def test_training_goes_on_from_what_was_read(
    published: dict[str, torch.Tensor], read: Read
) -> None:
    guided, _ = read(published)
    assert guided.training
    assert all(parameter.requires_grad for parameter in guided.parameters())


def test_options_are_read_from_the_shapes(read: Read) -> None:
    detector = Detector(SCALES["T"], 2, class_width=128, box_groups=1)
    _, card = read(training_tensors(GuidedDetector(detector, "fpn")))
    assert (card.class_width, card.box_groups, len(card.classes)) == (128, 1, 2)


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
            "model.22.dfl.conv.weight is not 0 to 15",
            id="other bins of the main head, named as in the converted form",
        ),
        pytest.param(
            {"model.8.cv4.conv.weight": torch.zeros(7, 256, 1, 1)},
            "are of no known size",
            id="an unknown size",
        ),
        pytest.param({"model.29.cv5.0.2.weight": torch.zeros(3)}, "lacks", id="a flat tensor"),
    ],
)
def test_every_tensor_must_match(
    published: dict[str, torch.Tensor],
    change: dict[str, torch.Tensor | None],
    expected: str,
    read: Read,
) -> None:
    tensors = {name: tensor for name, tensor in (published | change).items() if tensor is not None}
    assert expected in failure(read, tensors)


def test_a_converted_form_is_refused_with_the_way_out(
    published: dict[str, torch.Tensor], read: Read
) -> None:
    message = failure(read, converted_from(published, "T"))
    assert "got no auxiliary branch" in message
    assert "leave out --auxiliary" in message


def test_a_fused_training_form_is_refused_with_the_way_out(read: Read) -> None:
    message = failure(read, training_tensors(fuse(make_guided())))
    assert "normalisations are gone" in message
    assert "leave out --auxiliary" in message


def test_other_tensors_are_refused(read: Read) -> None:
    assert "not a detector of this family" in failure(read, {"weight": torch.zeros(2)})


def test_the_command_keeps_the_branch_if_asked(
    published: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, whole, deployed = (tmp_path / f"{name}.safetensors" for name in "abc")
    save_file({name: tensor.contiguous() for name, tensor in published.items()}, source)
    flags = ["--licence", "CC0-1.0"]
    assert main(["import", str(source), "--output", str(whole), "--auxiliary", *flags]) == 0
    assert main(["import", str(source), "--output", str(deployed), *flags]) == 0
    assert "size T, training, 3 classes" in capsys.readouterr().out
    guided, card = load_guided(whole)
    detector, deployed_card = load_detector(deployed)
    assert (card.form, deployed_card.form) == ("training", "fused")
    assert card.licence == deployed_card.licence == "CC0-1.0"
    ours = fuse(guided.detector.eval())
    for name, tensor in detector.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name
    assert main(["import", str(source), "--output", str(whole), "--auxiliary"]) == 2
    assert "exists already" in capsys.readouterr().err


def failure(read: Read, tensors: dict[str, torch.Tensor]) -> str:
    with pytest.raises(WeightsError) as caught:
        read(tensors)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)
