# SPDX-License-Identifier: Apache-2.0
"""What `import` prints."""

from pathlib import Path

import pytest

from model.weights import read_card
from sightline import main
from tests.model.builders import make_detector, published_tensors, save_published
from tests.training.trainings import tiny, write_data
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


def test_train_prints_the_command_that_runs_the_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_data(tmp_path / "data", count=3, side=64)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(tiny().model_dump_json(exclude_unset=True))
    arguments = ["train", str(data), "--model", "T", "--recipe", str(recipe), "--set", "epochs=1"]
    assert main([*arguments, "--output", str(tmp_path / "run")]) == 0
    weights = tmp_path / "run/weights.safetensors"
    printed = capsys.readouterr().out
    assert printed == f"{weights}: run it with\n  sightline run VIDEO --model {weights}\n"
    assert main([*arguments, "--output", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == (
        f"sightline: {tmp_path / 'run'}: a training is there already; go on with --resume, "
        "or give another --output\n"
    )


def test_train_names_a_wrong_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_data(tmp_path / "data", count=1, side=64)
    assert main(["train", str(data), "--set", "epochs=0", "--set", "optimiser.kind=sgdd"]) == 2
    said = capsys.readouterr().err
    assert "epochs: input should be greater than or equal to 1" in said
    assert "optimiser: " in said
