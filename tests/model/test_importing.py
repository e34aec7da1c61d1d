# SPDX-License-Identifier: Apache-2.0
"""Published weights under their own names, brought under ours."""

import json
from pathlib import Path

import pytest
import torch

from model.errors import WeightsError
from model.importing import _find_scale, bins_name, import_weights
from model.network import Detector
from model.reparam import fuse
from model.scales import SCALES, ScaleName
from model.weights import load_detector, read_card, weights_digest
from tests.model.builders import make_detector, published_tensors, save_published


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    return published_tensors(fuse(make_detector()))


def failure(source: Path, output: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        import_weights(source, output)
    assert not output.exists()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize(
    ("scale", "form"),
    [("T", "fused"), ("T", "unfused"), ("S", "unfused"), ("M", "fused"), ("C", "unfused")],
)
def test_every_size_and_form_gives_what_it_was(tmp_path: Path, scale: ScaleName, form: str) -> None:
    detector = make_detector(scale)
    origin = fuse(detector) if form == "fused" else detector
    source = save_published(tmp_path / "source.safetensors", published_tensors(origin))
    card = import_weights(source, tmp_path / "ours.safetensors")
    assert (card.scale, card.form, card.box_groups) == (scale, "fused", 4)
    loaded, read = load_detector(tmp_path / "ours.safetensors")
    assert read == card
    expected = fuse(detector).state_dict()
    assert all(torch.equal(loaded.state_dict()[k], v) for k, v in expected.items())


@pytest.mark.parametrize("scale", SCALES)
def test_a_size_is_recognised_by_the_widths_of_its_backbone(scale: ScaleName) -> None:
    with torch.device("meta"):
        detector = Detector(SCALES[scale], 3)
    assert _find_scale(Path("source"), published_tensors(detector)) == scale


def test_options_are_read_from_the_shapes(tmp_path: Path) -> None:
    detector = Detector(SCALES["T"], 5, class_width=128, box_groups=1)
    source = save_published(tmp_path / "source.safetensors", published_tensors(detector))
    card = import_weights(source, tmp_path / "ours.safetensors")
    assert (card.class_width, card.box_groups) == (128, 1)
    assert card.classes == ("class_0", "class_1", "class_2", "class_3", "class_4")


@pytest.mark.parametrize(
    "names", [["cat", "dog", "owl"], {"0": "cat", "1": "dog", "2": "owl"}], ids=["list", "map"]
)
def test_names_licence_and_source_are_carried_over(
    tmp_path: Path, published: dict[str, torch.Tensor], names: object
) -> None:
    metadata = {"names": json.dumps(names), "license": "GPL-3.0"}
    source = save_published(tmp_path / "source.safetensors", published, metadata)
    import_weights(source, tmp_path / "ours.safetensors")
    card = read_card(tmp_path / "ours.safetensors")
    assert card.classes == ("cat", "dog", "owl")
    assert card.licence == "GPL-3.0"
    assert card.source == "source.safetensors"
    assert card.source_sha256 == weights_digest(source)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param("cat, dog", "not JSON", id="not JSON"),
        pytest.param('["cat", "dog"]', "does not name each of its 3 classes", id="too few"),
        pytest.param('{"0": "cat", "2": "owl"}', "does not name each", id="a gap"),
        pytest.param("3", "does not name each", id="a number"),
    ],
)
def test_wrong_class_names_are_refused(
    tmp_path: Path, published: dict[str, torch.Tensor], names: str, expected: str
) -> None:
    source = save_published(tmp_path / "source.safetensors", published, {"names": names})
    assert expected in failure(source, tmp_path / "ours.safetensors")


def test_an_existing_output_is_replaced_only_on_request(
    tmp_path: Path, published: dict[str, torch.Tensor]
) -> None:
    source = save_published(tmp_path / "source.safetensors", published)
    output = tmp_path / "ours.safetensors"
    output.write_text("precious")
    with pytest.raises(WeightsError, match="exists already"):
        import_weights(source, output)
    assert output.read_text() == "precious"
    import_weights(source, output, overwrite=True)
    assert read_card(output).scale == "T"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(
            {"model.4.cv1.conv.bias": None}, "lacks model.4.cv1.conv.bias", id="a tensor missing"
        ),
        pytest.param(
            {"model.23.cv1.conv.weight": torch.zeros(1)},
            "has no place for model.23.cv1.conv.weight",
            id="a tensor left",
        ),
        pytest.param({"model.0.conv.bias": torch.zeros(3)}, "expected float32 (16,)", id="a shape"),
        pytest.param(
            {bins_name(SCALES["T"]): torch.zeros(1, 16, 1, 1)}, "is not 0 to 15", id="other bins"
        ),
        pytest.param(
            {"model.8.cv4.conv.weight": torch.zeros(7, 256, 1, 1)},
            "backbone widths (32, 64, 96, 7) are of no known size",
            id="an unknown size",
        ),
        pytest.param(
            {"model.22.cv2.0.1.conv.weight": torch.zeros(64, 32, 3, 3)},
            "(64, 32, 3, 3) is not one of ours",
            id="an unknown head",
        ),
        pytest.param({"model.22.cv3.0.2.weight": torch.zeros(3)}, "lacks", id="a flat tensor"),
    ],
)
def test_every_tensor_must_match(
    tmp_path: Path,
    published: dict[str, torch.Tensor],
    change: dict[str, torch.Tensor | None],
    expected: str,
) -> None:
    tensors = {name: tensor for name, tensor in (published | change).items() if tensor is not None}
    source = save_published(tmp_path / "source.safetensors", tensors)
    assert expected in failure(source, tmp_path / "ours.safetensors")


def test_of_many_tensors_the_first_few_are_named(
    tmp_path: Path, published: dict[str, torch.Tensor]
) -> None:
    extra = {f"model.30.part{place}": torch.zeros(1) for place in range(9)}
    source = save_published(tmp_path / "source.safetensors", published | extra)
    assert "and 6 more" in failure(source, tmp_path / "ours.safetensors")


def test_a_file_of_other_tensors_is_refused(tmp_path: Path) -> None:
    source = save_published(tmp_path / "source.safetensors", {"weight": torch.zeros(2)})
    assert "not a detector of this family" in failure(source, tmp_path / "ours.safetensors")


def test_our_own_file_is_refused_as_a_source(tmp_path: Path, weights: Path) -> None:
    text = failure(weights, tmp_path / "ours.safetensors")
    assert "a Sightline weights file already" in text


def test_published_weights_are_imported_whole(data: Path, tmp_path: Path) -> None:
    source = data / "weights" / "yolov9t-coco-fused.safetensors"
    card = import_weights(source, tmp_path / "t.safetensors")
    assert (card.scale, card.class_width, card.box_groups) == ("T", 80, 1)
    assert (card.classes[0], card.classes[79]) == ("person", "toothbrush")
    assert card.licence == "AGPL-3.0"
    assert card.source_sha256.startswith("3a31115f")
