"""What a camera whose pictures nobody wants saves a service: memory, and processor time a frame.

    python tests/benchmarks/bench_pictures.py --clip highway-1280x720.mp4 [--rounds 3]

One service of one camera, in processes, with an engine of known speed that does no work. The camera
has a rule that never fires, then none, and so on: a branch with pictures and one without take turns
in one run. Each is given time to settle; then memory (`Pss` of all processes, and what pools have
reserved) and processor time are read every second, the time of the process that reads the camera
apart from all others.
"""

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import yaml
from bench_memory import pss_mb, tree_of
from live import BuildTimed, timed_card
from timing import surroundings

from pipeline.serve.service import Service

NAME = "road"
ENGINE_S = 0.002
LIMIT_S = 60.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Second:
    """What a second cost."""

    reader_ms: float
    """Of the process that reads the camera, for a frame."""
    others_ms: float
    pss_mb: float
    """Of pages that a process has touched."""
    pools_mb: float
    """Of pages that pools have reserved, touched or not."""


def main() -> None:
    """Measure both in turns and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=8, help="read in each turn")
    parser.add_argument("--settle", type=float, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps({**surroundings(), **measure(options, Path(folder))}, indent=2))


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Let both take turns."""
    seconds: dict[str, list[Second]] = {"pictured": [], "not pictured": []}
    with patch("pipeline.serve.service.build_engine", BuildTimed(ENGINE_S)):
        service = Service(_write_settings(folder))
    thread = threading.Thread(target=service.run)
    thread.start()
    try:
        for _ in range(options.rounds):
            for name, taken in seconds.items():
                pictured = name == "pictured"
                service.put_camera(NAME, _camera(options.clip, pictured=pictured))
                taken += read_turn(service, options, pictured=pictured)
    finally:
        service.stop()
        thread.join()
    return {
        "clip": options.clip.name,
        "seconds_each": options.rounds * options.seconds,
        "median": {name: _medians(taken) for name, taken in seconds.items()},
    }


def read_turn(service: Service, options: argparse.Namespace, *, pictured: bool) -> list[Second]:
    """Wait until the branch is as it is to be and has settled, then read every second."""
    _wait(lambda: _has_begun(service, pictured=pictured))
    time.sleep(options.settle)
    state = service._supervisor.streams[NAME]
    assert (state.counters["pictures"] > 0) == pictured
    reader = next(
        process.pid
        for process in service._supervisor._crew._processes
        if process.group == "read" and process.stream == state.branch.stream
    )
    seconds = []
    for _ in range(options.seconds):
        before, begun = _cpu_ms(reader), state.counters["tracked"]
        time.sleep(1)
        after, num_frames = _cpu_ms(reader), state.counters["tracked"] - begun
        spent = [(b - a) / num_frames for a, b in zip(before, after, strict=True)]
        memory = sum(pss_mb(pid) for pid in tree_of(os.getpid()))
        seconds.append(Second(*spent, memory, _pools_mb(service)))
    return seconds


def _has_begun(service: Service, *, pictured: bool) -> bool:
    state = service._supervisor.streams.get(NAME)
    is_as_asked = state is not None and state.source.pictured == pictured
    return is_as_asked and state.counters["tracked"] > 0


def _cpu_ms(reader: int) -> tuple[float, float]:
    """Processor time so far of the process that reads the camera, and of all others."""
    spent = {pid: _process_ms(pid) for pid in tree_of(os.getpid())}
    of_reader = spent.pop(reader)
    return of_reader, sum(spent.values())


def _process_ms(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it ended meanwhile
        return 0.0
    return (int(fields[11]) + int(fields[12])) * 1000 / _TICKS_PER_S


def _pools_mb(service: Service) -> float:
    files = service._supervisor._crew._desk._files.values()
    return sum(os.fstat(file.descriptor).st_blocks * 512 for file in files) / 1e6


def _medians(seconds: list[Second]) -> dict[str, float]:
    return {
        "reader_cpu_ms_per_frame": round(median(one.reader_ms for one in seconds), 2),
        "others_cpu_ms_per_frame": round(median(one.others_ms for one in seconds), 2),
        "pss_mb": round(median(one.pss_mb for one in seconds), 1),
        "pools_mb": round(median(one.pools_mb for one in seconds), 1),
    }


def _camera(clip: Path, *, pictured: bool) -> dict[str, Any]:
    rule = {"name": "never", "kind": "occupancy", "zone": "all", "at_least": 1000}
    zone = {"all": [[0, 0], [1, 0], [1, 1], [0, 1]]}
    return {"source": str(clip), "zones": zone, "rules": [rule] if pictured else []}


def _write_settings(folder: Path) -> Path:
    tree = {
        "model": {"weights": str(timed_card(folder)), "image_size": 320},
        "events": {
            "database": {"path": str(folder / "events.db")},
            "snapshots": {"directory": str(folder / "snapshots")},
        },
        "http": None,
        "state": str(folder / "state"),
    }
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def _wait(true: Callable[[], object]) -> None:
    until_s = time.monotonic() + LIMIT_S
    while not true():
        if time.monotonic() > until_s:
            raise SystemExit("the camera gave no tracks in time")
        time.sleep(0.1)


if __name__ == "__main__":
    main()
