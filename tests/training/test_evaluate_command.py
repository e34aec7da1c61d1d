# SPDX-License-Identifier: Apache-2.0
"""`sightline evaluate`: what it prints, and its errors in one line."""

import json
from pathlib import Path

import pytest

from model.reparam import fuse
from model.weights import save_weights, weights_digest
from sightline import main
from tests.model.builders import make_calm_detector, make_card
from tests.training.datasets_on_disk import add, write_coco, write_yaml
from training.shipping import read_measured

NAMES = ["person", "bicycle", "car"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "t.safetensors"
    save_weights(path, fuse(make_calm_detector()), make_card())
    return path


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    for number in range(3):
        add(tmp_path, f"val/{number}", [(number, 10, 10, 40, 40)])
    return write_yaml(tmp_path, train=None, val="images/val", names=NAMES)


def test_json_holds_the_figures_and_through_the_pipeline_they_are_the_same(
    weights: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(weights), "--data", str(dataset), "--imgsz", "64", "--workers", "0"]
    assert main([*command, "--json", "--through-pipeline"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert (tree["images"], tree["protocol"], tree["image_size"]) == (3, "square", 64)
    assert sum(row["objects"] for row in tree["classes"].values()) == 3
    assert tree["through_pipeline"]["AP"] == pytest.approx(tree["AP"], abs=0.003)

    (tmp_path / "evaluation.json").write_text(json.dumps(tree))  # what a card takes over
    measured = read_measured(tmp_path / "evaluation.json", weights_digest(weights), tuple(NAMES))
    assert measured.overall.ap == tree["AP"]
    assert measured.image_size == 64
    assert sum(row.boxes for row in measured.calibration) > 0


def test_a_coco_file_can_be_measured_on(
    weights: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = dataset.parent
    images = {f"val/{n}.png": (48, 64, [(n, 10, 10, 40, 40)]) for n in range(3)}
    write_coco(folder / "instances.json", images)
    text = (folder / "instances.json").read_text()
    for colour, name in zip(("red", "green", "blue"), NAMES, strict=True):
        text = text.replace(f'"{colour}"', f'"{name}"')
    (folder / "instances.json").write_text(text)
    command = ["evaluate", str(weights), "--imgsz", "64", "--workers", "0", "--json", "--data"]
    assert main([*command, str(folder / "instances.json")]) == 0
    by_coco = json.loads(capsys.readouterr().out)
    assert main([*command, str(dataset)]) == 0
    by_yaml = json.loads(capsys.readouterr().out)
    assert by_coco["classes"] == by_yaml["classes"]


def says(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["evaluate", *map(str, arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_errors_are_one_line_that_says_what_is_wrong(
    weights: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ("--data", dataset)
    assert "cannot read this data set" in says(capsys, weights, "--data", tmp_path / "no.yaml")
    assert "no.json: no such file" in says(capsys, weights, "--data", tmp_path / "no.json")
    (tmp_path / "empty").mkdir()
    assert "no data set: expected" in says(capsys, weights, "--data", tmp_path / "empty")
    assert "no split 'test'; there are val" in says(capsys, weights, *data, "--split", "test")
    assert "cannot read these weights" in says(capsys, tmp_path / "none.safetensors", *data)
    assert "data.yaml" in says(capsys, dataset, *data)  # not weights
    assert "no weights: pass --model FILE" in says(capsys, *data)  # and none is shipped
    assert "multiple of 32" in says(capsys, weights, *data, "--imgsz", "100")
    assert "--batch of 1 or more" in says(capsys, weights, *data, "--batch", "0")
    rect = ("--through-pipeline", "--protocol", "rect")
    assert "compares squares" in says(capsys, weights, *data, *rect)
    other = write_yaml(dataset.parent, train=None, val="images/val", names=["a", "b", "c"])
    assert "no class in common" in says(capsys, weights, "--data", other)


@pytest.mark.slow
@pytest.mark.needs_data
def test_real_weights_are_as_good_through_the_pipeline(
    data: Path, coco_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """2026-11-21, 128 images of COCO at 640 px: AP .4389 directly and through the pipeline."""
    command = ["evaluate", str(coco_weights), "--data", str(data / "coco128"), "--json"]
    assert main([*command, "--through-pipeline"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree["AP"] == pytest.approx(0.439, abs=0.003)
    assert tree["through_pipeline"]["AP"] == pytest.approx(tree["AP"], abs=0.003)


@pytest.mark.slow
@pytest.mark.needs_data
def test_street_is_measured_as_its_readme_says(
    data: Path, coco_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """2026-11-21, squares of 640 px: AP .4325, AP50 .6372; stated .422 and .627.

    The stated figures take one box of an anchor; so measured, AP is .4236 and AP50 .6225.
    """
    command = ["evaluate", str(coco_weights), "--data", str(data / "street"), "--json"]
    assert main([*command, "--split", "test", "--protocol", "square"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree["AP"] == pytest.approx(0.4325, abs=0.003)
    assert tree["AP50"] == pytest.approx(0.6372, abs=0.003)
