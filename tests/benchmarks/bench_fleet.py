# SPDX-License-Identifier: Apache-2.0
"""Four boxes tell one collector over an outage of the link, kill -9 of it and of a box.

    python tests/benchmarks/bench_fleet.py [--minutes 10] [--rate 10] [--boxes 4]

Each box is a process that tells numbered events at a rate, the collector is `sightline collect`,
and between them is a link that is cut for the minutes given. In the middle of the outage one box is
killed and started again; the collector is killed while it catches up after the outage, and started
again. In the end every event that a box said to be kept must have come once, and those of each box
in their order. Then the key of the first box is taken away while it is connected and tells: nothing
that it tells from then on may come, and the others go on. Latency is from telling to the
collector, just before it commits, while nothing is broken. Ends with 1 if any of it does not hold.
"""

import argparse
import json
import resource
import signal
import sys
import tempfile
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from statistics import quantiles
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parents[2]))  # called by its path

from timing import surroundings

from tests.pipeline.fleet.processes import (
    KILL,
    BoxProcess,
    CollectorProcess,
    Link,
    free_port,
    rows_of,
    write_settings,
)
from tests.pipeline.fleet.world import Fleet
from tests.pipeline.telling.builders import wait_until

CALM_S, CATCHING_UP_S, REVOKED_S = 15.0, 300.0, 10.0


def main() -> None:
    """Tell, cut, kill, and count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="of the outage")
    parser.add_argument("--rate", type=float, default=10.0, help="events a second of each box")
    parser.add_argument("--boxes", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        result = Trial(Path(name), options).run()
    print(json.dumps({**surroundings(), **result}, indent=2))
    wrong = ("lost", "doubled", "out_of_order", "came_from_the_revoked")
    others = result["came_from_the_others"]
    sys.exit(1 if any(result[name] for name in wrong) or not others else 0)


class Trial:
    """One run of it all."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder, self.options = folder, options
        names = [f"box-{number}" for number in range(options.boxes)]
        self.fleet = Fleet(folder, *names)
        port, http_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{http_port}"
        settings = write_settings(folder, port, http_port)
        self.collector = CollectorProcess(settings, folder / "log")
        self.link = Link(port)
        address = f"tcp://127.0.0.1:{self.link.port}"
        self.boxes = [BoxProcess(folder, name, address, options.rate) for name in names]

    def run(self) -> dict[str, Any]:
        """All of it; what came of it."""
        try:
            wait_until(lambda: len(self._connected()) == len(self.boxes), 60.0)
            calm_from_s = time.time()
            time.sleep(CALM_S)
            outage_s, catching_up_s = self._have_an_outage()
            known = {box["name"]: box["known"] for box in self._boxes()}
            revoked = self._revoke(self.boxes[0])
            for box in self.boxes[1:]:
                box.finish(60.0)
        finally:
            for box in self.boxes:
                box.kill()
            self.collector.end(signal.SIGTERM)
        rows = rows_of(self.folder)
        return {
            "outage_s": round(outage_s, 1),
            "rate": self.options.rate,
            "catching_up_s": round(catching_up_s, 1),
            "sent_again_and_known": known,
            **self._judge(rows, revoked.pop("told_before")),
            **revoked,
            "latency_ms": latencies(rows, calm_from_s, calm_from_s + CALM_S),
            "largest_process_mib": round(
                resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            ),
        }

    def _have_an_outage(self) -> tuple[float, float]:
        """Cut the link, kill a box meanwhile, and the collector after; how long both took."""
        began_s = time.monotonic()
        self.link.cut()
        time.sleep(self.options.minutes * 30)
        self.boxes[1].kill()
        self.boxes[1].start()
        time.sleep(max(0.0, began_s + self.options.minutes * 60 - time.monotonic()))
        before = len(rows_of(self.folder))
        self.link.mend()
        back_s = time.monotonic()
        wait_until(lambda: len(rows_of(self.folder)) > before, 60.0)
        assert self.collector.end(KILL) == -KILL
        self.collector.start()
        wait_until(self._is_caught_up, CATCHING_UP_S)
        return back_s - began_s, time.monotonic() - back_s

    def _is_caught_up(self) -> bool:
        kept = {box.name: box.num_kept for box in self.boxes}
        come = numbers_by_box(rows_of(self.folder))
        return all(len(come[name]) >= number for name, number in kept.items())

    def _revoke(self, box: BoxProcess) -> dict[str, Any]:
        """Take a key away under way; what came after it."""
        others = sum(row[0] != box.name for row in rows_of(self.folder))
        self.fleet.revoke(box.name)
        revoked_s, told_before = time.time(), box.num_kept
        wait_until(lambda: "refused the key" in (self.folder / "log").read_text(), 60.0)
        time.sleep(REVOKED_S)
        rows = rows_of(self.folder)
        after_s = [told_s for name, _, told_s, _ in rows if name == box.name and told_s > revoked_s]
        states = {one["name"]: one["state"] for one in self._boxes()}
        return {
            "told_before": told_before,
            "told_after_revocation": box.num_kept - told_before,
            "came_from_the_revoked": len(after_s),
            "came_from_the_others": sum(row[0] != box.name for row in rows) - others,
            "states": states,
        }

    def _judge(self, rows: list[tuple[str, int, float, float]], revoked: int) -> dict[str, Any]:
        """What is lost, doubled or out of order; of the revoked box, of what it told before.

        What that one told in its last moments may be with it still, and is no loss.
        """
        come = numbers_by_box(rows)
        expected = {box.name: box.num_kept for box in self.boxes}
        slack = {self.boxes[0].name: max(1, round(self.options.rate))}
        expected[self.boxes[0].name] = revoked - slack[self.boxes[0].name]
        return {
            "kept_by_box": expected,
            "lost": sum(
                len(set(range(number)) - set(come[name])) for name, number in expected.items()
            ),
            "doubled": sum(len(several) - len(set(several)) for several in come.values()),
            "out_of_order": sum(
                later < earlier for several in come.values() for earlier, later in pairwise(several)
            ),
        }

    def _boxes(self) -> list[dict[str, Any]]:
        try:
            return list(httpx.get(f"{self.url}/api/boxes", timeout=10).json()["boxes"])
        except httpx.TransportError:  # it is starting
            return []

    def _connected(self) -> list[str]:
        return [box["name"] for box in self._boxes() if box["state"] == "connected"]


def numbers_by_box(rows: list[tuple[str, int, float, float]]) -> dict[str, list[int]]:
    """The numbers of each box's events, as they came."""
    come: dict[str, list[int]] = defaultdict(list)
    for name, number, _, _ in rows:
        come[name].append(number)
    return come


def latencies(
    rows: list[tuple[str, int, float, float]], from_s: float, until_s: float
) -> dict[str, float]:
    """From telling to commit, of what was told in a time."""
    calm = [
        (received_s - told_s) * 1000
        for _, _, told_s, received_s in rows
        if from_s < told_s < until_s
    ]
    cuts = quantiles(calm, n=100)
    return {"p50": round(cuts[49], 1), "p95": round(cuts[94], 1), "p99": round(cuts[98], 1)}


if __name__ == "__main__":
    main()
