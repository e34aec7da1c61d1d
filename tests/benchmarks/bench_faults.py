# SPDX-License-Identifier: Apache-2.0
"""How soon a service is well again after each fault of `tests/pipeline/serve/fault_kit.py`.

    python tests/benchmarks/bench_faults.py [--times 20] [--only "camera killed"]

Three small cameras with a keyframe a second, stages in processes, an engine that finds squares; a
webhook, a broker where there is a mosquitto, a database. Ends with 1 if something did not recover
or an event was lost.
"""

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from live import percentile
from timing import surroundings

from tests.pipeline.serve.fault_kit import FAULTS, Outcome, inject
from tests.pipeline.serve.world import World, world
from tests.pipeline.telling.broker import MOSQUITTO

WARM_UP = 50
FRAMES_AGED = 250
MOST_DEATHS = 100
"""In a minute; kills come faster here than a service would put up with."""


def main() -> None:
    """Inject every fault so many times and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=20, help="of each fault")
    parser.add_argument("--only", choices=FAULTS, action="append", help="only this fault")
    parser.add_argument("--placement", choices=("threads", "processes"), default="processes")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    wanted = [name for name in options.only or FAULTS if MOSQUITTO or name != "broker gone"]
    with tempfile.TemporaryDirectory() as folder:
        result = measure(options, wanted, Path(folder))
    print(json.dumps(result, indent=2))
    events = result["events"]
    sys.exit(1 if result["not_recovered"] or events["untold"] or events["forgotten"] else 0)


def measure(options: argparse.Namespace, wanted: list[str], folder: Path) -> dict[str, Any]:
    """Run one service through all faults."""
    chance, faults, failed = random.Random(options.seed), {}, {}
    settings = {"placement": options.placement, "supervision": {"restarts": MOST_DEATHS}}
    with world(folder, with_broker=MOSQUITTO is not None, **settings) as running:
        ages = await_ages(running)
        for name in wanted:
            outcomes = []
            for _ in range(options.times):
                try:
                    outcomes.append(inject(running, FAULTS[name], chance))
                except AssertionError as late:
                    failed[name] = str(late)
                    break
                print(f"{name}: {outcomes[-1]}", file=sys.stderr)
            faults[name] = describe(outcomes)
        events = account(running)
    return {
        **surroundings(),
        "cameras": "3, 320x192, 25 a second, a keyframe a second",
        "placement": options.placement,
        "since_sent_by_camera_s": ages,
        "times": options.times,
        "faults": faults,
        "not_recovered": failed,
        "events": events,
        "target_p95_s": {"cameras": 3.0, "stages": 5.0},
    }


def await_ages(running: World) -> dict[str, Any]:
    """How old frames are by the camera's own clock while nothing is wrong."""
    running.wait(lambda: len(running.service.seen["door"]) > FRAMES_AGED + WARM_UP, "frames")
    ages = running.ages("door")[WARM_UP:]
    return {
        "frames": len(ages),
        "captured": spread([age.captured_s for age in ages]),
        "tracked": spread([age.tracked_s for age in ages]),
    }


def describe(outcomes: list[Outcome]) -> dict[str, Any]:
    """One fault's figures."""
    lost: Counter[str] = Counter()
    for outcome in outcomes:
        lost.update(outcome.lost)
    return {
        "recovered": len(outcomes),
        "recovery_s": spread([outcome.recovery_s for outcome in outcomes]),
        "since_end_s": spread([outcome.since_end_s for outcome in outcomes]),
        "others_fps_share_min": min((round(o.others_share, 2) for o in outcomes), default=None),
        "own_fps_share_min": min((round(o.own_share, 2) for o in outcomes), default=None),
        "lost": dict(lost),
        "others_lost": sum(outcome.others_lost for outcome in outcomes),
    }


def spread(seconds: list[float]) -> dict[str, float] | None:
    """Median, 95th percentile and the longest."""
    shares = {"median": 0.5, "p95": 0.95, "max": 1.0}
    return {name: percentile(seconds, share) for name, share in shares.items()} if seconds else None


def account(running: World) -> dict[str, Any]:
    """What became of the events."""
    running.wait(lambda: not running.missing(), "the telling of all events", 30)
    statistics = running.statistics()
    return {
        "kept": statistics.kept,
        "lost": statistics.lost,
        "untold": len(running.missing()),
        "forgotten": len({name for name, _ in running.heard} - {e.id for e in running.events()}),
        "dropped": {name: each.dropped for name, each in statistics.receivers.items()},
    }


if __name__ == "__main__":
    main()
