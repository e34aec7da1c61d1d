# SPDX-License-Identifier: Apache-2.0
"""Somebody who crosses a line is known everywhere within a second of the picture."""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.serve import service as serving
from pipeline.serve.service import Service
from pipeline.telling.store import Query
from tests.pipeline.scenes import build_squares, make_card_file, make_scene
from tests.pipeline.telling.broker import MOSQUITTO, Broker, Listener
from tests.pipeline.telling.http_receiver import HttpReceiver

pytestmark = [
    pytest.mark.skipif(MOSQUITTO is None, reason="needs mosquitto"),
]

MIDDLE = [[0.5, 0.0], [0.5, 1.0]]
WITHIN_S = 1.0


class Arrivals:
    """When each crossing was first found where it is to be known, since its picture."""

    def __init__(self, service: Service, receiver: HttpReceiver, listener: Listener) -> None:
        self.after_s: defaultdict[str, dict[str, float]] = defaultdict(dict)
        self._service = service
        self._receiver = receiver
        self._listener = listener

    def look(self) -> None:
        """Note what has come since the last look."""
        page = self._service._teller.history.page(Query(kind="line"))
        for event in page.events:
            self._note("database", event.id, event.at_s)
        for request in list(self._receiver.requests):
            self._note("webhook", request.told["event"]["id"], request.told["event"]["at_s"])
        for _, payload in list(self._listener.heard):
            event = json.loads(payload).get("event") if b'"line"' in payload else None
            if event is not None:
                self._note("mqtt", event["id"], event["at_s"])

    def everywhere(self) -> list[float]:
        """Of the crossings known everywhere, when they were known at the last place."""
        return [max(at.values()) for at in self.after_s.values() if len(at) == 3]

    def _note(self, where: str, event_id: str, at_s: float) -> None:
        self.after_s[event_id].setdefault(where, time.time() - at_s)


def test_a_crossing_is_in_mqtt_webhook_and_database_within_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "build_engine", build_squares)
    model = {"weights": str(make_card_file(tmp_path / "card.safetensors")), "image_size": 160}
    clip = make_scene(tmp_path / "clip.mp4", num_frames=45, speed=6, bframes=0)
    with arrivals(tmp_path, clip, model) as found:
        await_crossings(found, 2)
        assert min(found.everywhere()) < WITHIN_S  # the other may meet a busy machine


@pytest.mark.slow
@pytest.mark.needs_data
def test_a_person_s_crossing_in_a_real_clip_is_everywhere_within_a_second(
    tmp_path: Path, data: Path, coco_weights: Path
) -> None:
    """With a real YOLOv9-T, 10 frames a second at 320 pixels, in the time of the clip.

    On 2026-11-22, on two busy cores, 70 s: both crossings were everywhere after 0.06 s and 0.09 s.
    """
    model = {"weights": str(coco_weights), "image_size": 320}
    clip = data / "clips/one-by-one-person-detection.mp4"
    with arrivals(tmp_path, clip, model, max_fps=10, classes=["person"]) as found:
        await_crossings(found, 2, limit_s=120)
        assert max(found.everywhere()) < WITHIN_S, dict(found.after_s)


def await_crossings(found: Arrivals, count: int, limit_s: float = 40) -> None:
    until_s = time.monotonic() + limit_s
    while len(found.everywhere()) < count:
        assert time.monotonic() < until_s, dict(found.after_s)
        found.look()
        time.sleep(0.01)


@contextmanager
def arrivals(folder: Path, clip: Path, model: dict[str, Any], **camera: Any) -> Iterator[Arrivals]:
    """Run a service over a clip in a loop, with everyone who is to know."""
    with Broker(folder) as broker, HttpReceiver() as receiver:
        listener = Listener(broker)
        path = folder / "settings.yaml"
        rule = {"name": "crossed", "kind": "line", "line": "middle"}
        watched = {"lines": {"middle": MIDDLE}, "rules": [rule], **camera}
        settings = {
            "model": model,
            "placement": "threads",
            "cameras": {"yard": {"source": f"replay:{clip}", **watched}},
            "events": {
                "database": {"path": str(folder / "events.db")},
                "snapshots": {"directory": str(folder / "snapshots")},
                "webhooks": [{"name": "hook", "url": receiver.url, "kinds": ["line"]}],
                "mqtt": {"host": "127.0.0.1", "port": broker.port, "home_assistant": False},
            },
            "http": None,
            "state": str(folder / "state"),
        }
        path.write_text(yaml.safe_dump(settings))
        service = Service(path)
        thread = threading.Thread(target=service.run, name="service")
        thread.start()
        try:
            yield Arrivals(service, receiver, listener)
        finally:
            service.stop()
            thread.join(30)
            listener.close()
            assert not thread.is_alive()
