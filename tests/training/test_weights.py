# SPDX-License-Identifier: Apache-2.0
"""Detectors in training on disk."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from model.errors import WeightsError
from model.weights import load_detector, read_card, save_weights
from tests.model.builders import make_card
from tests.training.builders import make_guided
from training.auxiliary import FORMS, FormName
from training.weights import load_guided, save_guided


@pytest.mark.parametrize("form", FORMS)
def test_what_is_saved_is_what_is_loaded(tmp_path: Path, form: FormName) -> None:
    guided, card = make_guided(form=form), make_card(form="training")
    save_guided(tmp_path / "state.safetensors", guided, card)
    loaded, read = load_guided(tmp_path / "state.safetensors")
    assert (read, loaded.form) == (card, form)
    expected, found = guided.state_dict(), loaded.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert loaded.training
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_the_card_says_training_whatever_it_said_before(tmp_path: Path) -> None:
    save_guided(tmp_path / "state.safetensors", make_guided(), make_card(form="unfused"))
    assert read_card(tmp_path / "state.safetensors").form == "training"


def test_a_detector_in_training_is_not_deployed_by_mistake(tmp_path: Path) -> None:
    save_guided(tmp_path / "state.safetensors", make_guided(), make_card())
    with pytest.raises(WeightsError, match="a detector in training, with its auxiliary branch"):
        load_detector(tmp_path / "state.safetensors")


def test_weights_without_a_branch_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "unfused.safetensors"
    save_weights(path, make_guided().detector, make_card(form="unfused"))
    with pytest.raises(WeightsError, match="unfused weights, without the auxiliary branch"):
        load_guided(path)


@pytest.mark.parametrize("form", ["ring", None], ids=["unknown", "missing"])
def test_an_auxiliary_form_that_is_not_known_is_refused(tmp_path: Path, form: str | None) -> None:
    path = rewritten(tmp_path, form)
    with pytest.raises(
        WeightsError, match=r"its auxiliary form is .*; this version knows none, pfh"
    ):
        load_guided(path)


def test_tensors_of_another_form_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"wrong tensors: auxiliary\.0\.branch"):
        load_guided(rewritten(tmp_path, "icn"))


def rewritten(folder: Path, form: str | None) -> Path:
    """A file whose metadata names another form than its tensors are of."""
    path = folder / "state.safetensors"
    save_guided(path, make_guided(), make_card())
    with safe_open(path, "pt") as file:
        metadata = dict(file.metadata())
    tensors = load_file(path)
    del metadata["auxiliary"]
    save_file(tensors, path, metadata | ({"auxiliary": form} if form else {}))
    return path
