# SPDX-License-Identifier: Apache-2.0
"""A service in a process of its own, asked over HTTP, for tests of all that it shows."""

import re
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.pipeline.serve.serving import COMMAND, environment

_ADDRESS = re.compile(r"status at (http://[^\"\s]+)")
_MARK = "SIGHTLINE_TEST_MARK"


@dataclass(frozen=True)
class Served:
    """A service at work."""

    process: subprocess.Popen[bytes]
    folder: Path
    settings: Path
    client: httpx.Client
    mark: str

    def status(self) -> dict[str, Any]:
        return self.client.get("/api/status").raise_for_status().json()

    def camera(self, name: str) -> dict[str, Any]:
        return self.status()["cameras"].get(name, {"state": "", "counters": {"tracked": 0}})

    def events(self, **query: str) -> list[dict[str, Any]]:
        answer = self.client.get("/api/events", params={"limit": "1000", **query})
        return answer.raise_for_status().json()["events"]

    def wait(self, true: Callable[[], object], timeout_s: float = 40.0) -> None:
        until_s = time.monotonic() + timeout_s
        while not true():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < until_s, f"not in time: {self.status()}\n{self.said()}"
            time.sleep(0.05)

    def said(self) -> str:
        """All it has written on stderr and stdout."""
        return (self.folder / "said.txt").read_text(errors="replace")

    def processes(self) -> Iterator[Path]:
        """The folder under /proc of each of its processes."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if f"{_MARK}={self.mark}".encode() in (folder / "environ").read_bytes():
                    yield folder
            except OSError:
                continue  # it has ended, or is none of ours


@contextmanager
def served(
    folder: Path,
    settings: Mapping[str, Any],
    variables: Mapping[str, str] | None = None,
    *,
    log_level: str = "info",
    headers: Mapping[str, str] | None = None,
) -> Iterator[Served]:
    """Run `sightline serve` on these settings until the block is left."""
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(settings))
    mark = uuid.uuid4().hex
    with (folder / "said.txt").open("wb") as said:
        process = subprocess.Popen(
            [*COMMAND, "serve", path, "--log-level", log_level],
            stdout=said,
            stderr=said,
            cwd=folder,
            env={**environment(), **(variables or {}), _MARK: mark},
        )
    with httpx.Client(timeout=20, headers=headers) as client:
        service = Served(process, folder, path, client, mark)
        try:
            client.base_url = _address(service)
            yield service
        finally:
            _end(process)


def _address(service: Served) -> str:
    until_s = time.monotonic() + 40
    while (match := _ADDRESS.search(service.said())) is None:
        assert service.process.poll() is None, service.said()
        assert time.monotonic() < until_s, service.said()
        time.sleep(0.05)
    return match[1]


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise
