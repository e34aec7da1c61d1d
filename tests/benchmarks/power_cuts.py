# SPDX-License-Identifier: Apache-2.0
"""Power cuts while everything is being written, on a disk that loses what was not flushed.

    python tests/benchmarks/power_cuts.py [--cuts 50] [--seed 1] [--output FILE]

An ext4 file system lies on a loop device over `losing_disk.py`. A recorder writes events (database,
outbox, webhook, file of JSON lines), pictures of events, MP4 and JSON lines of tracks, what rules
remember, settings and compiled artefacts, and says of each when it counts as kept; now and then it
is killed with -9 and goes on. At random moments, most in the middle of a burst of writes, a copy is
taken of what a cut would leave: all that was flushed and, of the rest, nothing, everything, or any
sectors. Each copy is mounted, which recovers its journal, and everything in it is looked at; then
the teller starts on it as after a cut. Ends with 1 if anything that was kept is missing or spoilt.
Needs root, loop devices and FUSE; 256 MiB of memory three times.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[2]))  # called by its path

from cut_checks import check
from cutting import PLANS, CutDisk, own_mounts
from timing import surroundings

from tests.pipeline.telling.builders import wait_until
from tests.pipeline.telling.http_receiver import HttpReceiver

HERE: Final = Path(__file__).parent
DISK_MIB: Final = 256
KILL_EVERY: Final = 7


@dataclass(frozen=True, slots=True)
class Said:
    """What the recorder was told is kept."""

    name: str
    value: int
    at_s: float


@dataclass(slots=True)
class Recorder:
    """The process that writes."""

    folder: Path
    port: int
    said: dict[str, list[Said]] = field(default_factory=lambda: defaultdict(list))
    run: int = 0
    latest_s: float = 0.0
    _process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Begin, or go on after a kill."""
        self.run += 1
        first = self.said["event"][-1].value + 1 if self.said["event"] else 0
        command = [sys.executable, str(HERE / "cut_recorder.py"), str(self.folder)]
        command += [str(self.port), str(self.run), str(first)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()

    def kill(self) -> None:
        """Kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.endswith("\n"):
                kind, name, value, at_s = line.split()
                self.said[kind].append(Said(name, int(value), float(at_s)))
                self.latest_s = float(at_s)

    def by(self, cut_s: float) -> dict[str, list[tuple[str, int, float]]]:
        """What it had been told at a moment."""
        wait_until(lambda: self.latest_s > cut_s + 0.2, within_s=60)
        return {
            kind: [(one.name, one.value, one.at_s) for one in tuple(several) if one.at_s <= cut_s]
            for kind, several in tuple(self.said.items())
        }


class Trial:
    """All cuts of one run."""

    def __init__(self, folder: Path, options: argparse.Namespace, receiver: HttpReceiver) -> None:
        self.folder, self.options, self.receiver = folder, options, receiver
        self.chance = random.Random(options.seed)
        self.disk = CutDisk(folder, DISK_MIB)
        self.recorder = Recorder(self.disk.mounted, receiver.port)
        self.results: list[dict[str, Any]] = []

    def run(self) -> None:
        """Record and cut."""
        self.recorder.start()
        wait_until(lambda: self.recorder.said["line"], within_s=120)
        context = get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as checker:
            for number in range(self.options.cuts):
                time.sleep(self.chance.uniform(0.2, 4.0))
                self.results.append(self._cut(number, checker.submit))
                print(json.dumps(self.results[-1]), flush=True)
                if number % KILL_EVERY == KILL_EVERY - 1:
                    self.recorder.kill()
                    self.recorder.start()

    def _cut(self, number: int, submit: Callable[..., Any]) -> dict[str, Any]:
        mode, most_writes = PLANS[number % len(PLANS)]
        left = self.folder / "left"
        cut = self.disk.cut(mode, self.chance.randint(0, most_writes), self.chance.random(), left)
        said = self.recorder.by(cut.at_s)
        with self.receiver.lock:
            told = [one for one in self.receiver.requests if one.at_s <= cut.at_s]
        found = submit(check, left, said, [one.key[0] for one in told], cut.at_s).result()
        left.unlink()
        return {
            "cut": number,
            "kept_of_pending": mode,
            "pending_sectors": cut.num_pending,
            "kept_sectors": cut.num_kept,
            **found,
        }

    def close(self) -> None:
        """End everything."""
        self.recorder.kill()
        self.disk.close()


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """What all cuts come to."""

    def seconds(name: str) -> dict[str, float]:
        values = [result[name] for result in results]
        return {"median": round(median(values), 2), "max": round(max(values), 2)}

    return {
        "cuts": len(results),
        "cuts_with_pending_writes": sum(result["pending_sectors"] > 0 for result in results),
        "pending_sectors": sum(result["pending_sectors"] for result in results),
        "kept_sectors": sum(result["kept_sectors"] for result in results),
        "faults": [fault for result in results for fault in result["faults"]],
        "events_kept_at_last_cut": results[-1]["events"],
        "events_told_at_last_cut": results[-1]["told"],
        "videos_looked_at": sum(result["videos"] for result in results),
        "video_lost_s": seconds("video_lost_s"),
        "lines_lost_s": seconds("lines_lost_s"),
        "checked": dict(sum((Counter(result["checked"]) for result in results), Counter())),
    }


def main() -> None:
    """Record, cut, and count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cuts", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    own_mounts()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name, HttpReceiver() as receiver:
        trial = Trial(Path(name), options, receiver)
        try:
            trial.run()
        finally:
            trial.close()
    result = {**surroundings(), **summary(trial.results), "each": trial.results}
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({name: value for name, value in result.items() if name != "each"}, indent=2))
    sys.exit(1 if result["faults"] else 0)


if __name__ == "__main__":
    main()
