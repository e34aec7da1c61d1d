# SPDX-License-Identifier: Apache-2.0
"""What the subcommands print."""

from pathlib import Path

import pytest

from model.cli import import_, models
from model.errors import WeightsError
from model.scales import SCALES
from model.weights import read_card
from tests.model.builders import make_detector, published_tensors, save_published


def test_models_lists_every_size(capsys: pytest.CaptureFixture[str]) -> None:
    models()
    printed = capsys.readouterr().out
    rows = [line.split("│")[1].strip() for line in printed.splitlines() if line.startswith("│")]
    assert rows == list(SCALES)
    assert "2.00 M" in printed
    assert "102.1" in printed


def test_models_says_what_a_file_holds(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models(weights)
    printed = capsys.readouterr().out
    for text in ("fused", "3: person, bicycle, car", "80 channels", "made by a test"):
        assert text in printed


def test_models_refuses_what_is_no_weights_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        models(tmp_path / "none")


def test_import_writes_and_says_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = save_published(tmp_path / "published", published_tensors(make_detector()))
    output = tmp_path / "[ours].safetensors"
    import_(source, output=output)
    assert read_card(output).scale == "T"
    printed = capsys.readouterr().out
    assert printed == f"{output}: size T, 3 classes, licence unknown\n"
