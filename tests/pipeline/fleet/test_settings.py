# SPDX-License-Identifier: Apache-2.0
"""Settings of a collector or a box that cannot be are said in a line, with the way out."""

import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import sightline
from model.config import load_settings
from model.errors import ConfigError
from pipeline.fleet.config import CollectorConfig
from pipeline.telling.fleet import FleetReceiver
from tests.pipeline.fleet.world import Fleet

CONFIGS = Path(__file__).parents[3] / "configs"


def foreign_database(fleet: Fleet) -> dict[str, Any]:
    path = fleet.folder / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE x (y)")
    return {"database": {"path": str(path)}}


def no_database(fleet: Fleet) -> dict[str, Any]:
    path = fleet.folder / "text.db"
    path.write_text("a text, and a long one, so that it is no header of SQLite " * 20)
    return {"database": {"path": str(path)}}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda _: {"listen": "0.0.0.0:8720"}, "listen: expected tcp://HOST:PORT"),
        (lambda _: {"listen": "tcp://192.0.2.1:1"}, "cannot listen there"),
        (lambda _: {"boxs": "x"}, "boxs: "),
        (lambda _: {"credits": 0}, "credits: "),
        (lambda f: {"boxes": str(f.folder / "none")}, "no folder (boxes); make it"),
        (lambda f: {"key": str(f.keys / "none.key")}, "cannot read this key"),
        (lambda f: {"key": str(f.keys / "collector.pub")}, "holds no secret key"),
        (lambda _: {"http": {"listen": "0.0.0.0:0"}}, "give a token, or listen on 127.0.0.1"),
        (foreign_database, "a database of something else; set database.path"),
        (no_database, "not a database; move it away, or set database.path to another file"),
    ],
)
def test_settings_that_cannot_be_end_in_a_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Fleet], dict[str, Any]],
    says: str,
) -> None:
    fleet = Fleet(tmp_path)
    path = tmp_path / "collector.yaml"
    path.write_text(yaml.safe_dump(fleet.settings() | change(fleet)))
    assert sightline.main(["collect", str(path), "--log-level", "error"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("sightline: ")
    assert says in line


def test_an_address_for_http_that_is_taken_is_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = Fleet(tmp_path)
    path = tmp_path / "collector.yaml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        path.write_text(yaml.safe_dump(fleet.settings(http={"listen": listen})))
        assert sightline.main(["collect", str(path), "--log-level", "error"]) == 2
    assert f"http.listen: {listen}: address already in use" in capsys.readouterr().err


def test_a_database_in_use_is_refused(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    fleet.start()
    try:
        with pytest.raises(ConfigError, match="in use by another Sightline"):
            Fleet.start(fleet, listen="tcp://127.0.0.1:0")
    finally:
        fleet.stop()


def test_a_box_that_takes_its_own_key_for_the_collector_s_is_refused(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, "gate")
    with pytest.raises(ConfigError, match=r"is our own key; copy the .pub file"):
        FleetReceiver(fleet.fleet_config("gate", collector_key=fleet.keys / "gate.pub"))


def test_the_example_loads() -> None:
    assert load_settings(CollectorConfig, CONFIGS / "fleet/collector.yaml").http is not None
