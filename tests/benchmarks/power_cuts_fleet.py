# SPDX-License-Identifier: Apache-2.0
"""Power cuts of a collector, on a disk that loses what was not flushed.

    python tests/benchmarks/power_cuts_fleet.py [--cuts 50] [--seed 1] [--output FILE]

A collector lies on the file system of `power_cuts.py`; four boxes, which do not, tell it events. At
random moments a copy is taken of what a cut would leave. What a box no longer keeps for the
collector when the cut is ordered, the collector has confirmed: it must be in the copy, whose
database must be sound and hold no event twice and none out of order. Ends with 1 if any of that is
not so. Needs root, loop devices and FUSE.
"""

import argparse
import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[2]))  # called by its path

from bench_fleet import numbers_by_box
from cutting import PLANS, CutDisk, count_cuts

from tests.pipeline.fleet.processes import (
    BoxProcess,
    CollectorProcess,
    free_port,
    rows_of,
    write_settings,
)
from tests.pipeline.fleet.world import Fleet
from tests.pipeline.telling.builders import wait_until

DISK_MIB: Final = 128
BOXES: Final = 4
RATE: Final = 25.0
"""Events a second of each box."""


def main() -> None:
    """Tell, cut and count."""
    count_cuts(__doc__.splitlines()[0], tried)


def tried(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Make all cuts while boxes tell."""
    chance = random.Random(options.seed)
    disk = CutDisk(folder, DISK_MIB)
    names = [f"box-{number}" for number in range(BOXES)]
    Fleet(disk.mounted, *names)
    port = free_port()
    collector = CollectorProcess(write_settings(disk.mounted, port), folder / "log")
    telling = folder / "telling"
    telling.mkdir()
    (telling / "keys").symlink_to(disk.mounted / "keys")
    boxes = [BoxProcess(telling, name, f"tcp://127.0.0.1:{port}", RATE) for name in names]
    each: list[dict[str, Any]] = []
    try:
        wait_until(lambda: all(box.num_kept for box in boxes), 60.0)
        for number in range(options.cuts):
            time.sleep(chance.uniform(0.2, 3.0))
            confirmed = {box.name: confirmed_of(telling, box) for box in boxes}
            mode, most_writes = PLANS[number % len(PLANS)]
            left = folder / "left"
            cut = disk.cut(mode, chance.randint(0, most_writes), chance.random(), left)
            faults = looked_at(left, folder / "looked", confirmed)
            each.append(
                {
                    "kept_of_pending": mode,
                    "pending_sectors": cut.num_pending,
                    "confirmed": sum(confirmed.values()),
                    "faults": faults,
                }
            )
            print(json.dumps(each[-1]), flush=True)
    finally:
        for box in boxes:
            box.kill()
        collector.end(signal.SIGTERM)
        disk.close()
    return {
        "cuts": len(each),
        "cuts_with_pending_writes": sum(one["pending_sectors"] > 0 for one in each),
        "confirmed_at_last_cut": each[-1]["confirmed"],
        "faults": [fault for one in each for fault in one["faults"]],
        "each": each,
    }


def confirmed_of(telling: Path, box: BoxProcess) -> int:
    """How many events, from the first on, a box keeps for the collector no more."""
    told = box.num_kept
    path = telling / box.name / "kept/events.db"
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        ((first,),) = database.execute("SELECT min(id) FROM outbox").fetchall()
    return told if first is None else int(first, 16)


def looked_at(left: Path, place: Path, confirmed: dict[str, int]) -> list[str]:
    """What is wrong in a copy."""
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", left, place], check=True)
    try:
        with closing(sqlite3.connect(place / "fleet.db")) as database:
            faults = [] if _is_sound(database) else ["the database is damaged"]
        come = numbers_by_box(rows_of(place))
    finally:
        subprocess.run(["umount", place], check=True)
        left.unlink()
    for name, number in confirmed.items():
        if missing := sorted(set(range(number)) - set(come[name])):
            faults.append(f"{name}: {len(missing)} confirmed and gone, {missing[0]} the first")
        if any(later <= earlier for earlier, later in pairwise(come[name])):
            faults.append(f"{name}: doubled or out of order")
    return faults


def _is_sound(database: sqlite3.Connection) -> bool:
    return database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


if __name__ == "__main__":
    main()
