# SPDX-License-Identifier: Apache-2.0
"""`sightline check` with the settings of a service."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sightline
from tests.pipeline.serve.serving import Place

PASSWORD = "hunter-2-hunter"
ZONE = {"all": [[0, 0], [1, 0], [1, 1]]}


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Given back, as `serve` takes them."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def place(tmp_path: Path, card_file: Path) -> Place:
    return Place(tmp_path, card_file)


def test_check_prints_graph_and_cameras_and_opens_nothing(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORD", PASSWORD)
    place.write({"yard": {"source": "rtsp://bob:${WORD}@192.0.2.1/live"}})
    assert sightline.main(["check", str(place.settings)]) == 0
    printed = capsys.readouterr().out
    assert "observe" in printed
    assert "camera yard: rtsp://192.0.2.1/live" in printed
    assert PASSWORD not in printed
    assert printed.endswith("settings are valid\n")
    assert list(place.folder.iterdir()) == [place.settings]


@pytest.mark.parametrize(
    ("camera", "says"),
    [
        ({"source": "nowhere.mp4"}, "cameras.yard.source: nowhere.mp4: no such file"),
        ({"source": "rtsp://h/l", "clases": ["person"]}, "cameras.yard.clases"),
        ({"source": "rtsp://h/l", "classes": ["cow"]}, "cow"),
        (
            {
                "source": "rtsp://h/l",
                "zones": ZONE,
                "rules": [{"name": "a", "kind": "enter", "zone": "all", "classes": ["cow"]}],
            },
            "cow",
        ),
    ],
)
def test_check_finds_what_serve_would_refuse(
    place: Place, capsys: pytest.CaptureFixture[str], camera: dict[str, Any], says: str
) -> None:
    place.write({"yard": camera})
    assert sightline.main(["check", str(place.settings)]) == 2
    printed = capsys.readouterr().err
    assert says in printed
    assert len(printed.splitlines()) == 1


def test_check_takes_assignments_for_a_service_and_no_options_of_a_run(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.write({"yard": {"source": "nowhere.mp4"}})
    source = "cameras.yard.source=rtsp://192.0.2.1/live"
    assert sightline.main(["check", str(place.settings), "--set", source]) == 0
    assert sightline.main(["check", str(place.settings), "--stride", "2"]) == 2
    assert "use --set" in capsys.readouterr().err


def test_without_weights_the_way_out_is_one_that_a_service_has(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.write({}, model={})
    for command in ("check", "serve"):
        assert sightline.main([command, str(place.settings)]) == 2
        printed = capsys.readouterr().err
        assert "model.weights: none given; name a file" in printed
        assert "--model" not in printed
