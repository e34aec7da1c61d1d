"""A worker for clients on other hosts that finds squares: in a thread, or as a process.

As a process it is the command itself: `python -m tests.pipeline.far_side worker --listen ...`.
"""

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from model.config import ModelConfig
from model.engines import Engine
from pipeline.config import RemoteConfig, WorkerConfig
from pipeline.station import Station
from pipeline.transport.curve import make_keys
from tests.pipeline.scenes import SquareEngine, build_squares

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 20


@dataclass(frozen=True)
class KeyRing:
    """Keys of a worker that knows one client, in files."""

    folder: Path
    allow: Path

    @classmethod
    def make(cls, folder: Path, *clients: str) -> "KeyRing":
        ring = cls(folder, folder / "allow")
        ring.allow.mkdir(parents=True)
        make_keys("worker", folder)
        for client in clients or ("client",):
            ring.admit(make_keys(client, folder)[1])
        return ring

    def admit(self, public: Path) -> None:
        (self.allow / public.name).write_text(public.read_text())

    def worker(self, weights: Path, listen: str = "tcp://127.0.0.1:0", **more: Any) -> WorkerConfig:
        return WorkerConfig(
            listen=listen,
            key=self.folder / "worker.key",
            allow=self.allow,
            model=more.pop("model", ModelConfig(weights=weights)),
            **more,
        )

    def remote(self, address: str, *, client: str = "client", **more: Any) -> RemoteConfig:
        named = {"server_key": self.folder / "worker.pub", "key": self.folder / f"{client}.key"}
        return RemoteConfig(address=address, **{**named, "timeout_s": TIMEOUT_S, **more})


class FarThread:
    """A station in a thread of this process."""

    def __init__(self, config: WorkerConfig, build: Callable[..., Engine] = build_squares) -> None:
        self.station = Station(config, build)
        self.address = self.station.address
        self._thread = threading.Thread(target=self.station.run)
        self._thread.start()

    def __enter__(self) -> "FarThread":
        return self

    def __exit__(self, *_: object) -> None:
        self.station.stop()
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()


class FarProcess:
    """The command in a process of its own."""

    def __init__(self, config: WorkerConfig, prefix: Sequence[str] = ()) -> None:
        self._process = subprocess.Popen(
            [
                *(*prefix, sys.executable, "-m", "tests.pipeline.far_side", "worker"),
                *("--listen", config.listen, "--model", str(config.model.weights)),
                *("--key", str(config.key), "--allow", str(config.allow)),
                *("--set", f"silence_s={config.silence_s}"),
            ],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        match = re.search(r"(tcp://\S+): listening", self.wait_for("listening"))
        assert match
        self.address = match[1]

    def wait_for(self, text: str) -> str:
        """The next line of the log with this text."""
        while text not in (line := self._lines.get(timeout=TIMEOUT_S)):
            pass
        return line

    def pass_on(self, number: int) -> None:
        """Send a signal."""
        os.kill(self._process.pid, number)

    def signal(self, number: int) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.pass_on(number)
        return self._process.wait(TIMEOUT_S)

    def __enter__(self) -> "FarProcess":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.signal(signal.SIGKILL)
        self._reader.join(TIMEOUT_S)
        assert self._process.stderr is not None
        self._process.stderr.close()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.log.append(line)
            self._lines.put(line)


class PausingEngine(SquareEngine):
    """Takes its time, so that there are pictures on their way whenever something happens."""

    def infer(self, images: np.ndarray) -> np.ndarray:
        time.sleep(0.03)
        return super().infer(images)


def build_pausing(_: Any, *, image_hw: tuple[int, int], batch: int = 1) -> Engine:
    """Stands in for `model.engines.build_engine`."""
    return PausingEngine(image_hw, batch)


if __name__ == "__main__":
    import sightline

    with patch("pipeline.cli.build_engine", build_pausing):
        sys.exit(sightline.main(sys.argv[1:]))
