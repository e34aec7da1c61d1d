"""Every file in configs/ loads, and the defaults it spells out are the defaults."""

from pathlib import Path

import pytest

from model.config import load_settings
from model.released import ReleaseNotes
from pipeline.config import PipelineConfig
from pipeline.serve.checked import is_service
from pipeline.serve.config import ServeConfig
from training.recipe import Recipe

CONFIGS = Path(__file__).parents[2] / "configs/pipeline"
SERVICES = Path(__file__).parents[2] / "configs/serve"
RECIPES = Path(__file__).parents[2] / "configs/training"
RELEASES = Path(__file__).parents[2] / "configs/release"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_config_loads(path: Path) -> None:
    load_settings(PipelineConfig, path)
    assert not is_service(path)


@pytest.mark.parametrize("path", sorted(SERVICES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_service_loads(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YARD_PASSWORD", "a-password")
    assert load_settings(ServeConfig, path).sources()
    assert is_service(path)


def test_the_file_config_spells_out_the_defaults() -> None:
    spelt = load_settings(PipelineConfig, CONFIGS / "file.yaml")
    video = {"output": spelt.output.model_copy(update={"save_video": False})}
    assert spelt.model_copy(update=video) == PipelineConfig()


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_loads(path: Path) -> None:
    load_settings(Recipe, path)


@pytest.mark.parametrize("scale", ["T", "S", "M", "C", "E"])
def test_the_paper_s_recipe_is_the_default(scale: str) -> None:
    spelt = load_settings(Recipe, RECIPES / f"coco-{scale.lower()}.yaml")
    assert spelt == Recipe(model=scale)


@pytest.mark.parametrize("path", sorted(RELEASES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_notes_of_a_release_load_under_its_name(path: Path) -> None:
    assert load_settings(ReleaseNotes, path).name == path.stem
