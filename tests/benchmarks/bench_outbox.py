"""Events at a steady rate over kill -9 of their teller and an outage of their receiver.

    python tests/benchmarks/bench_outbox.py [--minutes 10] [--rate 50] [--kills 3]

A process of its own tells numbered events to a webhook and a file of JSON lines, each once the one
before is kept, and says which are. It is killed at random moments and started again, where it goes
on with the first event it had not said to be kept. For a fifth of the time nobody listens at the
webhook's address, and one request in 1000 is read and not answered. In the end every event said to
be kept must have reached database, webhook and file; one that came twice must say so. Latency is
from telling to the webhook: `calm` but for the outage and the seconds after it, `worst` over all.
Ends with 1 if anything is lost or doubled without its mark.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from statistics import quantiles
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # called by its path

from timing import surroundings

from pipeline.telling.store import History, Query
from pipeline.telling.teller import Teller
from tests.pipeline.telling.builders import make_config, make_event
from tests.pipeline.telling.http_receiver import HttpReceiver

LEAST_S, CATCHING_UP_S = 2.0, 120.0
MADE_UP_S = 5.0
ANSWERS = [*[200] * 999, "drop"] * 100


def main() -> None:
    """Tell, kill, and count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=50.0, help="events a second")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--child", nargs=3, metavar=("FOLDER", "PORT", "FIRST"))
    options = parser.parse_args()
    if options.child:
        folder, port, first = options.child
        tell_for_ever(Path(folder), int(port), int(first), options.rate)
    with tempfile.TemporaryDirectory() as name:
        result = Trial(Path(name), options).run()
    print(json.dumps({**surroundings(), **result}, indent=2))
    sys.exit(1 if result["lost"] or result["doubled_without_mark"] else 0)


def config_for(folder: Path, port: int) -> Any:
    """One webhook and one file."""
    return make_config(
        folder,
        outbox={"longest_pause_s": 2.0},
        webhooks=[{"name": "a", "url": f"http://127.0.0.1:{port}/", "timeout_s": 5.0}],
        jsonl={"path": folder / "events.jsonl", "rotate_mib": 1 << 20},
    )


def tell_for_ever(folder: Path, port: int, first: int, rate: float) -> None:
    """Tell one event after the other, and say of each that it is kept."""
    teller = Teller(config_for(folder, port))
    began_s, number = time.monotonic(), first
    while True:
        teller.tell(make_event(number))
        assert teller.flush(60)
        print(number, flush=True)
        number += 1
        time.sleep(max(0.0, began_s + (number - first) / rate - time.monotonic()))


class Trial:
    """One run of it all."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder, self.options = folder, options
        self.seconds = options.minutes * 60
        self.receivers = [HttpReceiver(*ANSWERS)]
        self.port = self.receivers[0].port
        self.num_kept = 0
        self.outage = (0.4 * self.seconds, 0.6 * self.seconds)

    def run(self) -> dict[str, Any]:
        """All of it; what came of it."""
        chance = random.Random(self.options.seed)
        kills = [chance.uniform(0.1, 0.9) * self.seconds for _ in range(self.options.kills)]
        began_s = time.monotonic()
        outage = threading.Thread(target=self._have_an_outage, args=(began_s,))
        outage.start()
        for until_s in (*sorted(kills), self.seconds):
            self._tell(max(LEAST_S, began_s + until_s - time.monotonic()))
        outage.join()
        caught_up_s = self._catch_up()
        self.receivers[-1].close()
        return {"kills_at_s": [round(kill, 1) for kill in sorted(kills)]} | self._judge(caught_up_s)

    def _tell(self, for_s: float) -> None:
        """A process that tells events until it is killed."""
        command = [sys.executable, __file__, "--rate", str(self.options.rate)]
        command += ["--child", str(self.folder), str(self.port), str(self.num_kept)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            killer = threading.Timer(for_s, os.kill, (child.pid, signal.SIGKILL))
            killer.start()
            for line in child.stdout:
                if line.endswith("\n"):
                    self.num_kept = int(line) + 1
            assert child.wait() == -signal.SIGKILL
            killer.cancel()

    def _have_an_outage(self, began_s: float) -> None:
        start_s, end_s = self.outage
        time.sleep(max(0.0, began_s + start_s - time.monotonic()))
        self.receivers[0].close()
        time.sleep(max(0.0, began_s + end_s - time.monotonic()))
        self.receivers.append(HttpReceiver(*ANSWERS, port=self.port))

    def _catch_up(self) -> float:
        """Have the rest delivered; how long it took."""
        began_s = time.monotonic()
        teller = Teller(config_for(self.folder, self.port))
        while time.monotonic() < began_s + CATCHING_UP_S:
            if not any(one.waiting for one in teller.statistics().receivers.values()):
                break
            time.sleep(0.1)
        teller.close()
        return time.monotonic() - began_s

    def _judge(self, caught_up_s: float) -> dict[str, Any]:
        requests = [request for receiver in self.receivers for request in receiver.requests]
        lines = (self.folder / "events.jsonl").read_bytes().splitlines()
        told = {
            "webhook": [request.told for request in requests],
            "jsonl": [json.loads(line) for line in lines],
        }
        expected = {f"{number:032x}" for number in range(self.num_kept)}
        lost = {name: len(expected - ids_of(several)) for name, several in told.items()}
        lost["database"] = len(expected - self._ids_in_database())
        away, back = self.receivers[0].requests[-1].at_s, self.receivers[1].requests[0].at_s
        return {
            "minutes": self.options.minutes,
            "kept": self.num_kept,
            "nothing_heard_s": round(back - away, 1),
            "lost": {name: number for name, number in lost.items() if number},
            "doubled_without_mark": sum(unmarked(several) for several in told.values()),
            "doubled_with_mark": {
                name: len(several) - len(ids_of(several)) for name, several in told.items()
            },
            "out_of_order": sum(disordered(several) for several in told.values()),
            "latency_ms": latencies(requests, away, back),
            "caught_up_s": round(caught_up_s, 1),
        }

    def _ids_in_database(self) -> set[str]:
        history, ids, after = History(self.folder / "kept/events.db"), set(), None
        while True:
            page = history.page(Query(limit=1000, after=after))
            ids |= {event.id for event in page.events}
            if page.next is None:
                return ids
            after = page.next


def latencies(requests: list[Any], away_s: float, back_s: float) -> dict[str, float]:
    """How long after telling events arrived."""
    calm, every = [], []
    for request in requests:
        told_s = request.told["event"]["at_s"]
        latency_ms = (request.at_s - told_s) * 1000
        every.append(latency_ms)
        if not away_s < told_s < back_s + MADE_UP_S:
            calm.append(latency_ms)
    cuts = quantiles(calm, n=100)
    return {
        "calm_p50": round(cuts[49], 1),
        "calm_p95": round(cuts[94], 1),
        "worst": round(max(every), 1),
    }


def ids_of(told: list[dict[str, Any]]) -> set[str]:
    """Which events there are."""
    return {one["event"]["id"] for one in told}


def unmarked(told: list[dict[str, Any]]) -> int:
    """How many came again as if it were the first time."""
    firsts = Counter(one["event"]["id"] for one in told if not one["retry"])
    return sum(number - 1 for number in firsts.values())


def disordered(told: list[dict[str, Any]]) -> int:
    """How many came for the first time after one that is later."""
    seen: set[str] = set()
    latest, number = "", 0
    for one in told:
        event_id = one["event"]["id"]
        number += event_id not in seen and event_id < latest
        seen.add(event_id)
        latest = max(latest, event_id)
    return number


if __name__ == "__main__":
    main()
