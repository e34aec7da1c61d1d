# SPDX-License-Identifier: Apache-2.0
"""Boxes and a collector as processes, to be killed; and the way between them, to be cut."""

import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, suppress
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]


class CollectorProcess:
    """`sightline collect`, run again after each kill."""

    def __init__(self, settings: Path, log: Path) -> None:
        self._settings, self._log = settings, log
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        command = [sys.executable, str(ROOT / "sightline.py"), "collect", str(self._settings)]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log)

    def end(self, number: int) -> int:
        """Send it a signal; how it ended."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)


class BoxProcess:
    """`telling_box.py`, which goes on after a kill with the first event not said to be kept."""

    def __init__(self, folder: Path, name: str, address: str, rate: float) -> None:
        self.name, self.num_kept = name, 0
        self._arguments = [str(folder), name, address]
        self._rate = rate
        self.start()

    def start(self) -> None:
        script = str(Path(__file__).with_name("telling_box.py"))
        command = [sys.executable, script, *self._arguments, str(self.num_kept), str(self._rate)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True,
        )  # fmt: skip
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(30)
        self._reading.join(30)

    def finish(self, within_s: float) -> None:
        """Have it stop telling, and wait until everything is delivered."""
        self.stop_telling()
        assert self._process.wait(within_s) == 0
        self._reading.join(30)

    def stop_telling(self) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write("\n")
            self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith("\n"):
                self.num_kept = int(line) + 1


class Link:
    """Passes bytes on between a port of its own and another, until it is cut."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._ends: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._accept()

    def cut(self) -> None:
        """End every connection, and let none be made."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._ends.clear()

    def mend(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self._accept()

    def _accept(self) -> None:
        threading.Thread(target=self._take, args=(self._listening,), daemon=True).start()

    def _take(self, listening: socket.socket) -> None:
        with suppress(OSError):  # it is cut
            while True:
                near, _ = listening.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._to_port), timeout=5)
                    far.settimeout(None)
                except OSError:  # nobody listens there
                    near.close()
                    continue
                self._ends += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=_pass_on, args=(one, other), daemon=True).start()


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while content := one.recv(65536):
            other.sendall(content)
    for end in (one, other):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def write_settings(folder: Path, port: int, http_port: int | None = None) -> Path:
    """Settings of a collector, in a file."""
    path = folder / "collector.yaml"
    settings = {
        "listen": f"tcp://127.0.0.1:{port}",
        "key": str(folder / "keys/collector.key"),
        "boxes": str(folder / "boxes"),
        "database": {"path": str(folder / "fleet.db")},
        "http": None if http_port is None else {"listen": f"127.0.0.1:{http_port}"},
    }
    path.write_text(yaml.safe_dump(settings))
    return path


def rows_of(folder: Path) -> list[tuple[str, int, float, float]]:
    """Box, number of the event, when it was told and when received, in the order of commits."""
    with closing(sqlite3.connect(f"{(folder / 'fleet.db').as_uri()}?mode=ro", uri=True)) as reader:
        return [
            (box, int(event_id, 16), told_s, received_s)
            for box, event_id, told_s, received_s in reader.execute(
                """SELECT box, id, json_extract(CAST(body AS TEXT), '$.at_s'), received_s
                FROM messages ORDER BY number"""
            )
        ]


KILL = signal.SIGKILL
