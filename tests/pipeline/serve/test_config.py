from pathlib import Path

import pytest

from model.config import load_settings
from model.errors import ConfigError
from pipeline.errors import SourceUnreadable
from pipeline.serve.config import ServeConfig

PASSWORD = "hunter-2-hunter"

YAML = """
model: {weights: t.safetensors, image_size: 320}
tracking: {kind: sort}
cameras:
  yard:
    source: rtsp://viewer:${YARD_PASSWORD}@192.0.2.10/stream1
    max_fps: 10
    classes: [person]
  door: {source: rtsp://192.0.2.11/live}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServeConfig:
    monkeypatch.setenv("YARD_PASSWORD", PASSWORD)
    (tmp_path / "serve.yaml").write_text(YAML)
    return load_settings(ServeConfig, tmp_path / "serve.yaml")


def test_cameras_are_named_sources_with_settings_of_their_own(config: ServeConfig) -> None:
    yard, door = config.sources().values()
    assert (yard.name, yard.kind, door.name) == ("yard", "rtsp", "door")
    assert yard.location == f"rtsp://viewer:{PASSWORD}@192.0.2.10/stream1"
    assert (yard.camera.max_fps, yard.camera.classes) == (10, ("person",))
    assert not hasattr(yard.camera, "source")


@pytest.mark.parametrize("pictures", [True, False])
def test_a_camera_without_rules_has_no_pictures(*, pictures: bool) -> None:
    zone = {"zones": {"all": [[0, 0], [1, 0], [1, 1]]}}
    rule = {"rules": [{"name": "visitor", "kind": "enter", "zone": "all"}]}
    source = {"source": "rtsp://192.0.2.11/live"}
    cameras = {"plain": source, "zone": source | zone, "rule": source | zone | rule}
    config = ServeConfig.model_validate({"cameras": cameras, "pictures": pictures})
    pictured = {name: source.pictured for name, source in config.sources().items()}
    assert pictured == {"plain": False, "zone": False, "rule": pictures}


def test_what_cameras_have_in_common_goes_to_the_pipeline(config: ServeConfig) -> None:
    common = config.pipeline
    assert common.model == config.model
    assert common.tracking.kind == "sort"
    assert common.placement == "processes"
    assert common.parallel == 2


def test_a_password_is_in_nothing_that_shows_settings(config: ServeConfig) -> None:
    shown = f"{config!r} {config.model_dump()} {config.model_dump_json()}"
    assert "source=***" in shown
    assert PASSWORD not in shown


@pytest.mark.parametrize(
    ("cameras", "says"),
    [
        ("{a/b: {source: rtsp://h/l}}", "cameras.a/b.[key]"),
        ("{yard@2: {source: rtsp://h/l}}", "cameras.yard@2.[key]"),
        ("{yard: {source: rtsp://h/l}, Yard: {source: rtsp://h/l}}", "differ in case only"),
        ("{yard: {source: 'rtsp://${NOT_SET_ANYWHERE}@h'}}", "no variable NOT_SET_ANYWHERE"),
        ("{yard: {}}", "cameras.yard.source: field required"),
    ],
)
def test_faults_are_named_with_their_path(tmp_path: Path, cameras: str, says: str) -> None:
    (tmp_path / "serve.yaml").write_text(f"cameras: {cameras}")
    with pytest.raises(ConfigError) as refusal:
        load_settings(ServeConfig, tmp_path / "serve.yaml")
    assert says in str(refusal.value)
    assert len(str(refusal.value).splitlines()) <= 4


def test_a_file_is_played_in_a_loop_and_pictures_are_no_camera(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.png"):
        (tmp_path / name).write_bytes(b"")
    film = {"cameras": {"yard": {"source": str(tmp_path / "a.mp4")}}}
    assert ServeConfig.model_validate(film).sources()["yard"].kind == "replay"
    picture = {"cameras": {"yard": {"source": str(tmp_path / "b.png")}}}
    with pytest.raises(SourceUnreadable, match="stands for 1 files or for pictures"):
        ServeConfig.model_validate(picture).sources()
