from pathlib import Path
from typing import Any

import pytest

from model.errors import ConfigError
from pipeline.serve.config import ServeConfig
from pipeline.serve.reload import Difference, apply, compare
from tests.pipeline.scenes import make_card_file, make_scene
from tests.pipeline.service import DOOR, GATE, YARD, running


def config(*, cameras: dict[str, Any] | None = None, **nodes: Any) -> ServeConfig:
    return ServeConfig.model_validate({"cameras": cameras or {}, **nodes})


def at(path: str, **settings: Any) -> dict[str, Any]:
    return {"source": f"rtsp://192.0.2.1/{path}", **settings}


def test_a_difference_names_cameras_that_come_go_and_change() -> None:
    running = config(cameras={"same": at("a"), "gone": at("b"), "moved": at("c"), "slow": at("d")})
    wanted = config(
        cameras={"new": at("e"), "same": at("a"), "moved": at("f"), "slow": at("d", max_fps=2)}
    )
    assert compare(running, running) == Difference()
    assert compare(running, wanted) == Difference(
        added=("new",), removed=("gone",), changed=("moved", "slow")
    )


def test_a_password_that_changes_is_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    configs = []
    for password in ("one", "two"):
        monkeypatch.setenv("WORD", password)
        configs.append(config(cameras={"yard": {"source": "rtsp://me:${WORD}@192.0.2.1/"}}))
    assert compare(*configs) == Difference(changed=("yard",))


def test_other_weights_are_a_swap() -> None:
    running, wanted = (config(model={"weights": name}) for name in ("a", "b"))
    assert compare(running, wanted) == Difference(weights=Path("b"))


@pytest.mark.parametrize(
    ("nodes", "path"),
    [
        ({"placement": "threads"}, "placement"),
        ({"tracking": {"kind": "sort"}}, "tracking.kind"),
        ({"model": {"image_size": 320}}, "model.image_size"),
        ({"gate": {}}, "gate"),
        ({"service": {"most_cameras": 3}, "window": 9}, "window, service.most_cameras"),
    ],
)
def test_what_needs_a_restart_is_refused_with_its_path(nodes: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        compare(config(), config(**nodes))
    assert str(refusal.value).startswith(f"{path}: cannot change while the service runs")


def test_a_difference_is_made_so_and_what_stays_is_not_touched(
    tmp_path: Path, card_file: Path
) -> None:
    clip = str(make_scene(tmp_path / "clip.mp4", num_frames=50, bframes=0))
    model = {"weights": card_file, "image_size": 160}
    before = config(cameras={YARD: {"source": clip}, DOOR: {"source": clip}}, model=model)
    other = {"weights": make_card_file(tmp_path / "other.safetensors"), "image_size": 160}
    after = config(cameras={YARD: {"source": clip}, GATE: {"source": clip}}, model=other)
    with running(card_file, *before.sources().values()) as service:
        service.wait_for_frames(YARD, 3)
        first = service.supervisor.streams[YARD]
        swap = apply(service.supervisor, compare(before, after), after)
        service.wait_for_frames(GATE, 3)
        service.wait(lambda: service.is_gone(DOOR))
        assert service.supervisor.streams[YARD] is first
        assert swap is not None
        assert swap.result(20).config.weights == other["weights"]
