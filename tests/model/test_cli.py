# SPDX-License-Identifier: Apache-2.0
"""What the subcommands print."""

from pathlib import Path

import pytest

from model.cli import models
from model.errors import WeightsError
from model.scales import SCALES


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
