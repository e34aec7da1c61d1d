# SPDX-License-Identifier: Apache-2.0
"""What `import` prints."""

from pathlib import Path

import pytest

from model.weights import read_card
from tests.model.builders import make_detector, published_tensors, save_published
from training.cli import import_


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
