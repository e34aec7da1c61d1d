# SPDX-License-Identifier: Apache-2.0
"""A whole service as a box of a fleet."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.fleet.database import Query
from pipeline.telling.letters import decode_event
from tests.pipeline.fleet.world import Fleet
from tests.pipeline.scenes import make_scene
from tests.pipeline.serve.serving import Place, serving


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path, "gate")
    fleet.start()
    yield fleet
    fleet.stop()


def test_a_service_tells_its_fleet_its_events_and_how_its_cameras_do(
    fleet: Fleet, tmp_path: Path, card_file: Path
) -> None:
    walk = make_scene(tmp_path / "walk.mp4", num_frames=25, bframes=0, speed=6)
    place = Place(tmp_path, card_file)
    camera: dict[str, Any] = {
        "source": str(walk),
        "zones": {"right": [[0.4, 0.0], [1.0, 0.0], [1.0, 1.0], [0.4, 1.0]]},
        "rules": [{"name": "visitor", "kind": "enter", "zone": "right"}],
    }
    told = {
        "address": fleet.address,
        "key": str(fleet.keys / "gate.key"),
        "collector_key": str(fleet.keys / "collector.pub"),
        "health_s": 1.0,
    }
    events = {
        "database": {"path": str(tmp_path / "events.db")},
        "snapshots": {"directory": str(tmp_path / "snapshots")},
        "fleet": told,
    }
    place.write({"yard": camera}, events=events)
    collector = fleet.collector
    assert collector is not None
    with serving(place.settings) as service:
        service.wait(lambda: collector.database.page(Query(box="gate", kind="enter")))
        service.wait(lambda: _live(fleet))
        service.wait(lambda: service.status()["events"]["receivers"]["fleet"]["connected"])
    (latest, *_) = collector.database.page(Query(box="gate", kind="enter"))
    event = decode_event(latest.event)
    assert (event.camera, event.rule) == ("yard", "visitor")
    last = {f"{event.id}:{event.revision}" for event in place.events()}
    assert last <= set(fleet.told("gate"))


def _live(fleet: Fleet) -> bool:
    """Whether the collector was told of a camera that gives frames."""
    report = fleet.box("gate").report
    return report is not None and report.cameras["yard"].state == "live"
