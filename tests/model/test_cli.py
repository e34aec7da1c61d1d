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
    lines = [line for line in printed.splitlines() if line.startswith("│")]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]
    assert [row[0] for row in rows[::2]] == list(SCALES)
    assert rows[0] == ["T", "fused", "2.00 M", "7.7", "38.3"]
    assert rows[1] == ["", "unfused", "2.04 M", "7.8", ""]
    assert rows[8] == ["E", "fused", "57.35 M", "188.9", "55.6"]


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
    assert capsys.readouterr().out == (
        f"{source}: official names, without auxiliary\n"
        f"{output}: size T, fused, 3 classes, 1,983,113 parameters, class branch 80 channels, "
        "box branch 4 groups, licence unknown\n"
        "the file states no licence; if you know it, state it with --licence\n"
    )


def test_import_keeps_the_licence_it_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = save_published(tmp_path / "published", published_tensors(make_detector()))
    import_(source, output=tmp_path / "ours", licence="MIT")
    assert read_card(tmp_path / "ours").licence == "MIT"
    assert capsys.readouterr().out.endswith("licence MIT\n")
