# SPDX-License-Identifier: Apache-2.0
"""Weights files: what comes back, and what a wrong file is told."""

import json
import pickle
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.card import CARD_KEY, MAX_HEADER_BYTES
from model.errors import WeightsError
from model.network import Detector
from model.reparam import fuse
from model.scales import SCALES
from model.weights import load_detector, read_card, save_weights, weights_digest
from tests.model.builders import make_card, make_detector


def fault(path: Path) -> str:
    """What reading this file fails with: one line that names it, whoever reads it."""
    texts = []
    for read in (read_card, load_detector):
        with pytest.raises(WeightsError) as caught:
            read(path)
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
    assert len(texts[0].splitlines()) == 1
    assert texts[0].startswith(f"{path}: ")
    return texts[0]


def edit(path: Path, change: dict[str, torch.Tensor | None], card: str | None = None) -> None:
    """Replace, add or (with None) remove tensors of a weights file."""
    card = card or read_card(path).model_dump_json()
    tensors = load_file(path) | change
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, path, {CARD_KEY: card})


@pytest.fixture
def copy(weights: Path, tmp_path: Path) -> Path:
    path = tmp_path / "copy.safetensors"
    path.write_bytes(weights.read_bytes())
    return path


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    fused = fuse(make_detector())
    save_weights(tmp_path / "t.safetensors", fused, make_card())
    detector, card = load_detector(tmp_path / "t.safetensors")
    assert card == make_card()
    assert not detector.training
    assert all(torch.equal(detector.state_dict()[k], v) for k, v in fused.state_dict().items())


def test_unfused_weights_are_fused_when_loaded(tmp_path: Path) -> None:
    unfused = make_detector()
    save_weights(tmp_path / "t.safetensors", unfused, make_card(form="unfused"))
    detector, _ = load_detector(tmp_path / "t.safetensors")
    expected = fuse(unfused).state_dict()
    assert detector.state_dict().keys() == expected.keys()
    assert all(torch.equal(detector.state_dict()[k], v) for k, v in expected.items())


def test_the_names_on_disk_are_words(weights: Path) -> None:
    names = list(load_file(weights))
    assert "backbone.block_p3.first.csp.chain.0.second.conv.weight" in names
    assert "head.box.p3.out.bias" in names


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "No such file" in fault(tmp_path / "none.safetensors")


def test_a_folder_is_named(tmp_path: Path) -> None:
    assert "directory" in fault(tmp_path)


def test_an_empty_file_is_named_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "empty.safetensors"
    path.touch()
    assert "empty" in fault(path)


@pytest.mark.parametrize("kept", [5, 9, 500, 200_000, -1])
def test_a_truncated_file_is_named_in_one_line(copy: Path, kept: int) -> None:
    copy.write_bytes(copy.read_bytes()[:kept])
    text = fault(copy)
    assert ("cut short" in text) or (kept == 5 and "not a safetensors file" in text)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(bytes(range(256)) * 20, id="bytes"),
        pytest.param(b"x", id="one byte"),
        pytest.param(b"\xff" * 9, id="a huge header"),
        pytest.param(struct.pack("<Q", MAX_HEADER_BYTES + 1) + b"{}", id="a header too large"),
        pytest.param(struct.pack("<Q", 2) + b"{]", id="not JSON"),
        pytest.param(struct.pack("<Q", 2) + b"{\xff", id="not text"),
        pytest.param(struct.pack("<Q", 7) + b'{"a":1}', id="a tensor that is a number"),
        pytest.param(struct.pack("<Q", 60_000) + b'{"a":' * 12_000, id="too deep"),
    ],
)
def test_random_bytes_are_named_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "random.safetensors"
    path.write_bytes(content)
    assert "not a safetensors file" in fault(path)


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param({"dtype": "F32", "shape": [2], "data_offsets": [0, -8]}, id="negative end"),
        pytest.param({"dtype": "F32", "shape": "2", "data_offsets": [0, 8]}, id="shape as text"),
        pytest.param({"dtype": "F32", "shape": 2, "data_offsets": [0, 8]}, id="shape as number"),
        pytest.param({"dtype": "F32", "shape": [2], "data_offsets": []}, id="no offsets"),
        pytest.param({"dtype": "F32", "shape": [2]}, id="offsets missing"),
        pytest.param([1, 2], id="a list"),
    ],
)
def test_a_damaged_header_is_named(tmp_path: Path, entry: object) -> None:
    text = json.dumps({"a": entry}).encode()
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    assert "its header is damaged" in fault(path)


def test_tensors_that_overlap_are_named(copy: Path) -> None:
    content = copy.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    first, second = [name for name in header if name != "__metadata__"][:2]
    header[first]["data_offsets"] = header[second]["data_offsets"]
    text = json.dumps(header).encode()
    copy.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    with pytest.raises(WeightsError, match="the tensors cannot be read") as caught:
        load_detector(copy)
    assert len(str(caught.value).splitlines()) == 1


def test_a_foreign_safetensors_file_is_told_how_to_be_imported(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"model.0.conv.weight": torch.zeros(2)}, path, {"format": "pt"})
    assert f"sightline import {path} --output PATH" in fault(path)
    save_file({"model.0.conv.weight": torch.zeros(2)}, path)
    assert f"sightline import {path} --output PATH" in fault(path)


@pytest.mark.parametrize("kind", ["zip", "pickle"])
def test_a_pickle_is_refused_unopened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "yolov9.pt"
    if kind == "zip":
        torch.save({"weight": torch.zeros(1)}, path)
    else:
        path.write_bytes(pickle.dumps({"weight": 1}))
    assert "pickle form" in fault(path)
    assert f"sightline import {path} --output PATH" in fault(path)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"format_version": 2}, "format_version", id="a later format"),
        pytest.param({"scale": "X"}, "scale", id="an unknown size"),
        pytest.param({"colour": "red"}, "colour", id="an unknown field"),
        pytest.param({"classes": []}, "classes", id="no classes"),
        pytest.param({"class_width": -1}, "class_width", id="a negative width"),
    ],
)
def test_a_card_of_another_version_is_named(
    copy: Path, changes: dict[str, object], expected: str
) -> None:
    card = json.loads(read_card(copy).model_dump_json()) | changes
    edit(copy, {}, json.dumps(card))
    assert f"{expected}: " in fault(copy)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({"backbone.stem_p1.conv.bias": None}, "conv.bias is missing", id="missing"),
        pytest.param({"extra": torch.zeros(1)}, "extra has no place", id="extra"),
        pytest.param(
            {"backbone.stem_p1.conv.bias": torch.zeros(3)},
            "backbone.stem_p1.conv.bias is float32 (3,), expected float32 (16,)",
            id="shape",
        ),
        pytest.param(
            {"backbone.stem_p1.conv.bias": torch.zeros(16, dtype=torch.int8)},
            "backbone.stem_p1.conv.bias is int8 (16,), expected float32 (16,)",
            id="type",
        ),
    ],
)
def test_wrong_tensors_are_named(
    copy: Path, change: dict[str, torch.Tensor | None], expected: str
) -> None:
    edit(copy, change)
    with pytest.raises(WeightsError, match="wrong tensors") as caught:
        load_detector(copy)
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_of_many_wrong_tensors_the_first_are_named(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    save_weights(path, fuse(Detector(SCALES["S"], 3)), make_card())
    with pytest.raises(WeightsError, match=r"and \d+ more$"):
        load_detector(path)


def test_half_precision_tensors_are_read_as_float32(copy: Path) -> None:
    edit(copy, {name: tensor.half() for name, tensor in load_file(copy).items()})
    detector, _ = load_detector(copy)
    assert {parameter.dtype for parameter in detector.parameters()} == {torch.float32}


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "taken"
    target.mkdir()
    with pytest.raises(WeightsError, match="cannot write these weights"):
        save_weights(target, fuse(make_detector()), make_card())
    with pytest.raises(WeightsError, match="cannot write these weights"):
        save_weights(tmp_path / "none" / "t.safetensors", fuse(make_detector()), make_card())
    assert list(tmp_path.iterdir()) == [target]


def test_the_digest_is_that_of_the_file(copy: Path) -> None:
    before = weights_digest(copy)
    assert len(before) == 64
    edit(copy, {"head.box.p3.out.bias": torch.ones(64)})
    assert weights_digest(copy) != before


def test_the_digest_of_a_missing_file_is_a_weights_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="No such file"):
        weights_digest(tmp_path / "none")
