# SPDX-License-Identifier: Apache-2.0
"""Runs that name no model, and what then follows from its card."""

import json
from pathlib import Path

import pytest

import sightline
from model.config import ModelConfig, Suppression
from model.errors import ConfigError
from pipeline import run
from pipeline.config import PipelineConfig
from pipeline.job import Job, describe_graph, settled
from tests.model.builders import make_released
from tests.pipeline.scenes import make_card_file, make_scene


@pytest.fixture
def default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A default model in name only, which recommends score 0.33 and was measured at 96 px."""
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setenv("SIGHTLINE_MODELS", str(folder))
    return make_card_file(folder / "street-t.safetensors", released=make_released())


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_scene(tmp_path / "walk.mp4", num_frames=6)


@pytest.mark.usefixtures("squares")
def test_a_run_without_a_model_takes_the_default_as_its_card_says(
    default: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sightline.main(["run", str(clip), "--output", str(tmp_path / "out"), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["model"]["weights"] == str(default)
    assert summary["settings"]["suppression"]["min_score"] == 0.33
    assert summary["settings"]["model"]["image_size"] == 96
    assert summary["streams"][0]["tracked"] == 6


@pytest.mark.usefixtures("squares", "default")
def test_python_needs_no_model_either(clip: Path) -> None:
    assert [result.frame_index for result in run(clip)] == [*range(6)]


@pytest.mark.usefixtures("default")
@pytest.mark.parametrize(
    "config",
    [
        pytest.param(
            PipelineConfig(
                suppression=Suppression(min_score=0.25), model=ModelConfig(image_size=640)
            ),
            id="given where it is made",
        ),
        pytest.param(
            PipelineConfig.model_validate(
                {"suppression": {"min_score": 0.25}, "model": {"image_size": 640}}
            ),
            id="read from a file",
        ),
    ],
)
def test_what_somebody_set_stands_though_it_is_the_general_default(config: PipelineConfig) -> None:
    known = settled(config)
    assert (known.suppression.min_score, known.model.image_size) == (0.25, 640)


@pytest.mark.usefixtures("default")
def test_settling_twice_changes_nothing() -> None:
    once = settled(PipelineConfig())
    assert once.suppression.min_score == 0.33
    assert settled(once) == once


@pytest.mark.usefixtures("default")
def test_check_knows_the_classes_of_the_default_model() -> None:
    assert "infer" in describe_graph(PipelineConfig(classes=("person",)))
    with pytest.raises(ConfigError, match="knows no boat"):
        describe_graph(PipelineConfig(classes=("boat",)))


def test_without_a_default_model_a_run_asks_for_one(clip: Path) -> None:
    with pytest.raises(ConfigError, match=r"^no weights: pass --model FILE"):
        Job(PipelineConfig(), [str(clip)])
    assert "infer" in describe_graph(PipelineConfig())
