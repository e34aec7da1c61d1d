# SPDX-License-Identifier: Apache-2.0
"""Files of every code base, imported: the detector that comes out is the one that went in."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from model.errors import WeightsError
from model.importing import import_weights
from model.network import Detector
from model.published import read_published
from model.reparam import fuse
from model.weights import load_detector
from tests.model.builders import make_detector, published_tensors, save_published
from tests.model.foreign import (
    T_OR_S,
    Tensors,
    dense,
    mit_tensors,
    mit_training_tensors,
    other,
    save_lightning,
    save_official,
    save_raw_official,
    save_ultralytics,
    training_tensors,
)


@pytest.fixture(scope="module")
def detector() -> Detector:
    """Random weights that half precision holds exactly."""
    return make_detector().half().float()


@pytest.fixture(scope="module")
def converted(detector: Detector) -> Tensors:
    return published_tensors(detector)


@pytest.fixture(scope="module")
def training(converted: Tensors) -> Tensors:
    return training_tensors(converted, T_OR_S)


def others(tensors: Tensors) -> Tensors:
    return {name: other(tensor) for name, tensor in tensors.items()}


def save_tensors(path: Path, tensors: Tensors) -> Path:
    torch.save(tensors, path)
    return path


def save_double(path: Path, tensors: Tensors) -> Path:
    wide = {
        name: tensor.double() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
    return save_tensors(path, wide)


class Forms(NamedTuple):
    """One network without and with an auxiliary branch, under official names."""

    plain: Tensors
    training: Tensors


WRITERS: dict[str, tuple[str, Callable[[Path, Forms], Path]]] = {
    "official converted": (
        "official names, without auxiliary",
        lambda path, forms: save_official(path, forms.plain),
    ),
    "official training form": (
        "official names, training form",
        lambda path, forms: save_official(path, forms.training),
    ),
    "official training in progress": (
        "official names, training form",
        lambda path, forms: save_raw_official(path, others(forms.training), forms.training),
    ),
    "official tensors in float64": (
        "official names, without auxiliary",
        lambda path, forms: save_double(path, forms.plain),
    ),
    "training form in safetensors": (
        "official names, training form",
        lambda path, forms: save_published(path, forms.training),
    ),
    "MIT": (
        "MIT names, without auxiliary",
        lambda path, forms: save_tensors(path, mit_tensors(forms.plain)),
    ),
    "MIT training form": (
        "MIT names, training form",
        lambda path, forms: save_tensors(path, mit_training_tensors(forms.training, T_OR_S)),
    ),
    "Lightning": (
        "MIT names, without auxiliary",
        lambda path, forms: save_lightning(path, mit_tensors(forms.plain), None),
    ),
    "Lightning with an average": (
        "MIT names, without auxiliary",
        lambda path, forms: save_lightning(
            path, others(mit_tensors(forms.plain)), mit_tensors(forms.plain)
        ),
    ),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_layout_gives_the_same_detector(
    tmp_path: Path, detector: Detector, converted: Tensors, training: Tensors, kind: str
) -> None:
    layout, write = WRITERS[kind]
    source = write(tmp_path / "source.pt", Forms(converted, training))
    card = import_weights(source, tmp_path / "ours.safetensors")
    assert (card.scale, card.class_width, card.box_groups, card.form) == ("T", 80, 4, "fused")
    assert (card.source_layout, card.licence, card.source) == (layout, "unknown", "source.pt")
    loaded, _ = load_detector(tmp_path / "ours.safetensors")
    expected = fuse(detector)
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(loaded(images), expected(images))
    assert all(torch.equal(loaded.state_dict()[k], v) for k, v in expected.state_dict().items())


@pytest.mark.parametrize("raw", [False, True], ids=["stripped", "training in progress"])
def test_a_file_of_ultralytics_keeps_its_dense_box_branch_and_its_licence(
    tmp_path: Path, detector: Detector, converted: Tensors, raw: bool
) -> None:
    source = save_ultralytics(tmp_path / "yolov9t.pt", dense(converted), raw=raw)
    card = import_weights(source, tmp_path / "ours.safetensors")
    assert card.box_groups == 1
    assert card.licence == "AGPL-3.0 License (https://ultralytics.com/license)"
    assert card.source_layout == "ultralytics names, without auxiliary"
    assert card.classes == ("person", "bicycle", "car")
    loaded, _ = load_detector(tmp_path / "ours.safetensors")
    images = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        assert torch.allclose(loaded(images), fuse(detector)(images), atol=1e-4)


def test_training_finds_the_whole_of_a_training_form(tmp_path: Path, training: Tensors) -> None:
    published = read_published(save_official(tmp_path / "yolov9-s.pt", training))
    assert published.tensors.keys() == training.keys()
    assert all(torch.equal(published.tensors[k], v.half().to(v)) for k, v in training.items())


def test_counters_of_batches_may_be_missing_or_converted(
    tmp_path: Path, detector: Detector, converted: Tensors
) -> None:
    fewer = {k: v for k, v in converted.items() if not k.endswith("num_batches_tracked")}
    floats = {k: v.float() for k, v in converted.items()}
    for tensors in (fewer, floats):
        source = save_published(tmp_path / "source.safetensors", tensors)
        import_weights(source, tmp_path / "ours.safetensors", overwrite=True)
        loaded, _ = load_detector(tmp_path / "ours.safetensors")
        expected = fuse(detector).state_dict()
        assert all(torch.equal(loaded.state_dict()[k], v) for k, v in expected.items())
    broken = converted | {"model.0.bn.num_batches_tracked": torch.zeros(2)}
    source = save_published(tmp_path / "source.safetensors", broken)
    with pytest.raises(WeightsError, match=r"num_batches_tracked holds 2 numbers, expected 1"):
        read_published(source)


TINY = {"model.22.cv3.0.2.weight": torch.zeros(3, 8, 1, 1)}
"""Enough of a network to be told its layout."""


@pytest.mark.parametrize("names", [["cat", "dog", "owl"], {0: "cat", 1: "dog", 2: "owl"}])
def test_class_names_of_a_checkpoint_are_kept(tmp_path: Path, names: object) -> None:
    source = save_official(tmp_path / "source.pt", TINY, names=names)
    assert read_published(source).class_names(3) == ("cat", "dog", "owl")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param(["cat", "dog"], "made for 2 classes by its own description", id="too few"),
        pytest.param({1: "a", 2: "b", 3: "c"}, "does not name each of its 3", id="shifted"),
        pytest.param({0: "a", 1: "", 2: "c"}, "does not name each of its 3", id="empty"),
        pytest.param({0: "a", 1: [], 2: "c"}, "does not name each of its 3", id="a list"),
        pytest.param({"x": "a", 1: "b", 2: "c"}, "not numbered", id="not numbered"),
    ],
)
def test_class_names_that_do_not_fit_are_refused(
    tmp_path: Path, names: object, expected: str
) -> None:
    source = save_official(tmp_path / "source.pt", TINY, names=names)
    with pytest.raises(WeightsError, match=expected) as caught:
        read_published(source).class_names(3)
    assert len(str(caught.value).splitlines()) == 1


def test_a_class_name_cannot_fool_a_screen(tmp_path: Path) -> None:
    source = save_official(tmp_path / "source.pt", TINY, names=["a\x1b[2J", "b\nc", "d" * 99])
    assert read_published(source).class_names(3)[:2] == ("a?[2J", "b?c")


def test_a_licence_cannot_be_stated_for_a_file_that_states_its_own(tmp_path: Path) -> None:
    source = save_ultralytics(tmp_path / "source.pt", TINY)
    with pytest.raises(WeightsError, match=r"states its licence itself, AGPL-3\.0"):
        import_weights(source, tmp_path / "ours.safetensors", licence="MIT")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("model.4.conv.weight", float("nan"), "NaN or infinite values: model.4.conv.weight"),
        ("model.4.conv.weight", float("inf"), "NaN or infinite values: model.4.conv.weight"),
        ("model.4.bn.running_var", -1.0, "negative variances: model.4.bn.running_var"),
    ],
    ids=["NaN", "infinite", "negative variance"],
)
def test_numbers_that_are_none_are_refused(
    tmp_path: Path, name: str, value: float, expected: str
) -> None:
    source = save_tensors(tmp_path / "source.pt", TINY | {name: torch.tensor([0.0, value])})
    with pytest.raises(WeightsError, match=expected):
        read_published(source)


def test_numbers_that_fusing_makes_too_large_are_refused(
    tmp_path: Path, converted: Tensors
) -> None:
    name = "model.4.cv1.bn.weight"
    broken = converted | {name: torch.full_like(converted[name], 3e38)}
    source = save_tensors(tmp_path / "source.pt", broken)
    with pytest.raises(WeightsError, match="too large for float32 once it is fused"):
        import_weights(source, tmp_path / "ours.safetensors")


def test_tensors_of_another_type_are_refused(tmp_path: Path, converted: Tensors) -> None:
    name = "model.4.cv1.conv.weight"
    broken = converted | {name: converted[name].to(torch.int8)}
    source = save_tensors(tmp_path / "source.pt", broken)
    with pytest.raises(WeightsError, match=r"is int8 .*, expected float32"):
        import_weights(source, tmp_path / "ours.safetensors")
