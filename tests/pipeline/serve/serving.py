# SPDX-License-Identifier: Apache-2.0
"""A whole service over replayed scenes: in a thread, or as the command in a process.

As a process it is the command itself, which tells of a lost camera after half a second, so that
tests need not wait for it: `[*COMMAND, "serve", FILE]` under `environment()`.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import yaml

from pipeline.events import Event
from pipeline.serve.service import Service
from pipeline.telling.store import History, Query
from tests.pipeline.scenes import build_squares

ROOT = Path(__file__).parents[3]
BUILD = "pipeline.serve.service.build_engine"
COMMAND = [sys.executable, "-m", "tests.pipeline.serve.serving"]


@dataclass(frozen=True)
class Place:
    """The folder of a service: its settings and all it leaves."""

    folder: Path
    weights: Path

    @property
    def settings(self) -> Path:
        return self.folder / "serve.yaml"

    def write(self, cameras: Mapping[str, Any], /, **nodes: Any) -> Path:
        """Write settings under which nothing is lost to this machine's slowness."""
        tree: dict[str, Any] = {
            "model": {"weights": str(self.weights), "image_size": 160},
            "source": {"staleness_s": 10},
            "window": 64,
            "placement": "threads",
            "cameras": dict(cameras),
            "events": {
                "database": {"path": str(self.folder / "events.db")},
                "snapshots": {"directory": str(self.folder / "snapshots")},
            },
            "http": {"listen": "127.0.0.1:0"},
            "state": str(self.folder / "state"),
            **nodes,
        }
        self.settings.write_text(yaml.safe_dump(tree))
        return self.settings

    def events(self, kind: str | None = None) -> list[Event]:
        """What is kept, the first event first."""
        page = History(self.folder / "events.db").page(Query(kind=kind, limit=500))  # type: ignore[arg-type]
        return list(reversed(page.events))


@dataclass
class Serving:
    """A service at work, as others meet it."""

    client: httpx.Client

    def status(self) -> Any:
        return self.client.get("/api/status").json()

    def camera(self, name: str) -> Any:
        return self.status()["cameras"][name]

    def tracked(self, name: str) -> int:
        return int(
            self.status()["cameras"].get(name, {"counters": {}})["counters"].get("tracked", 0)
        )

    def wait(self, true: Callable[[], object], timeout_s: float = 20.0) -> None:
        until = time.monotonic() + timeout_s
        while not true():
            assert time.monotonic() < until, json.dumps(self.status(), indent=1)
            time.sleep(0.02)

    def wait_for_frames(self, name: str, count: int = 5) -> None:
        goal = self.tracked(name) + count
        self.wait(lambda: self.tracked(name) >= goal)


@contextmanager
def serving(settings: Path, build: Callable[..., Any] = build_squares) -> Iterator[Serving]:
    """Run a service until the block is left; nothing must have failed by then."""
    with patch(BUILD, build):
        service = Service(settings)
    faults: list[BaseException] = []

    def run() -> None:
        try:
            service.run()
        except Exception as fault:  # noqa: BLE001 - looked at when it is over
            faults.append(fault)

    thread = threading.Thread(target=run, name="service")
    thread.start()
    try:
        with httpx.Client(base_url=service.address, timeout=30) as client:
            yield Serving(client)
    finally:
        service.stop()
        thread.join(20)
        service.stop()
        thread.join(20)
        assert not thread.is_alive()
    assert faults == []


def environment() -> dict[str, str]:
    """Under which the command finds this package, in few threads."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


if __name__ == "__main__":
    import sightline

    with patch(BUILD, build_squares), patch("pipeline.serve.service._LOST_AFTER_S", 0.5):
        sys.exit(sightline.main())
