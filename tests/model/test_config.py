# SPDX-License-Identifier: Apache-2.0
"""Settings files and overrides, right and wrong."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from model.config import ModelConfig, Settings, Suppression, load_settings
from model.errors import ConfigError


class Camera(Settings):
    name: str
    port: int = 554


class Tree(Settings):
    suppression: Suppression = Suppression()
    model: ModelConfig = ModelConfig()
    cameras: tuple[Camera, ...] = ()


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text)
    return path


def test_nothing_given_is_all_defaults() -> None:
    assert load_settings(Tree, None) == Tree()


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert load_settings(Tree, write(tmp_path, "")) == Tree()


def test_an_override_wins_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "suppression: {min_score: 0.4, max_iou: 0.5}")
    tree = load_settings(Tree, path, ["suppression.max_iou=0.6", "model.engine = torch"])
    assert (tree.suppression.min_score, tree.suppression.max_iou) == (0.4, 0.6)
    assert tree.model.engine == "torch"


def test_an_override_reaches_into_a_list(tmp_path: Path) -> None:
    path = write(tmp_path, "cameras: [{name: door}, {name: yard}]")
    tree = load_settings(Tree, path, ["cameras.1.port=8554", "cameras.0={name: gate}"])
    assert tree.cameras == (Camera(name="gate"), Camera(name="yard", port=8554))


def test_every_fault_is_reported_with_its_path(tmp_path: Path) -> None:
    path = write(tmp_path, "suppression: {min_score: 2, boxes: 3}\nmodel: {image_size: 100}")
    with pytest.raises(ConfigError) as caught:
        load_settings(Tree, path)
    text = str(caught.value)
    assert text.startswith(f"{path}: 3 faults:")
    for name in ("suppression.min_score: ", "suppression.boxes: ", "model.image_size: "):
        assert name in text
    assert len(text.splitlines()) <= 4


def test_many_faults_still_fit_a_few_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "\n".join(f"unknown_{place}: 1" for place in range(20)))
    with pytest.raises(ConfigError) as caught:
        load_settings(Tree, path)
    assert all(f"unknown_{place}: " in str(caught.value) for place in range(20))
    assert len(str(caught.value).splitlines()) <= 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a: [1, 2", "not valid YAML", id="syntax"),
        pytest.param("- 1", "got a list", id="not a mapping"),
        pytest.param("suppression: {max_boxes: 0}", "suppression.max_boxes: ", id="range"),
        pytest.param("model: {engine: none}", "model.engine: ", id="choice"),
    ],
)
def test_a_wrong_file_is_named_with_its_fault(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=r"settings\.yaml") as caught:
        load_settings(Tree, path)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a: 'rtsp://bob:s3cr3t@cam\n", "line 2, column 1: while scanning", id="quote"),
        pytest.param("a: !s3cr3t", "line 1, column 4: could not determine", id="tag"),
        pytest.param("a: *s3cr3t", "line 1, column 4: found undefined alias", id="alias"),
        pytest.param("rtsp://bob:s3cr3t@cam: 1", "(an address): extra inputs", id="key"),
        pytest.param("a: [s3cr3t\nb: 2", "expected ',' or ']', but got ':'", id="sign"),
    ],
)
def test_what_a_wrong_file_holds_is_not_shown(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(Tree, write(tmp_path, text))
    assert expected in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot read these settings"):
        load_settings(Tree, tmp_path / name)


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load_settings(Tree, path)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        pytest.param("suppression.max_iou", "expected NAME.NAME=VALUE", id="no equals"),
        pytest.param("=1", "expected NAME.NAME=VALUE", id="no name"),
        pytest.param("suppression..max_iou=1", "expected NAME.NAME=VALUE", id="empty part"),
        pytest.param("suppression.max_iou=[", "is not valid YAML", id="value"),
        pytest.param("suppression.max_iou.x=1", "has no fields", id="below a number"),
        pytest.param("cameras.7.port=1", "expected a position from 0 to 0", id="no such place"),
        pytest.param("suppression.max_iou=high", "suppression.max_iou: ", id="type"),
        pytest.param("nothing.here=1", "nothing: ", id="unknown"),
    ],
)
def test_a_wrong_override_is_named(tmp_path: Path, override: str, expected: str) -> None:
    path = write(tmp_path, "suppression: {max_iou: 0.5}\ncameras: [{name: door}]")
    with pytest.raises(ConfigError) as caught:
        load_settings(Tree, path, [override])
    assert expected in str(caught.value)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Suppression().min_score = 0.5  # type: ignore[misc]
