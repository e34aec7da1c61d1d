# SPDX-License-Identifier: Apache-2.0
"""Power cuts while a box is updated, on a disk that loses what was not flushed.

    python tests/benchmarks/power_cuts_update.py [--cuts 50] [--seed 1] [--output FILE]

A box lies on the file system of `power_cuts.py`. It is updated again and again, by the scripts that
boxes run: every other version does well, the next migrates the database, records an event, crashes,
and is gone back from. At random moments of each step a copy is taken of what a cut would leave.
Each copy is mounted in the place of the box, and does what a box does when it starts: it recovers.
Then the version that `current` leads to must work and be the last that an update had ended with, or
the one that was being gone over to if that had just ended; settings must be as they were, the
database sound, with its event, and nothing of the update be left. Ends with 1 if any of that is not
so. Needs root, loop devices and FUSE.
"""

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final, get_args

sys.path.insert(0, str(Path(__file__).parents[2]))  # called by its path

from cutting import PLANS, CutDisk, count_cuts

from pipeline.box.health import Limits
from pipeline.box.journal import Step
from pipeline.box.layout import Layout
from pipeline.box.manager import InitScript
from pipeline.box.updating import Updater
from pipeline.errors import UpdateFailed
from tests.pipeline.box.box import Box, build_bundle

DISK_MIB: Final = 320
LIMITS: Final = Limits(watch_s=0.3, ready_s=10.0, silent_s=5.0, poll_s=0.05)
STEPS: Final = get_args(Step)
MODES: Final = ("good", "schema-record-crash")


def main() -> None:
    """Update, cut, and count; or look at what a cut has left."""
    if sys.argv[1:2] == ["--look"]:
        print(json.dumps(look(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])))
        return
    count_cuts(__doc__.splitlines()[0], tried)


def tried(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Make all cuts, each during an update."""
    chance = random.Random(options.seed)
    disk = CutDisk(folder, DISK_MIB)
    box = None
    try:
        box = Box(disk.mounted / "box", build_bundle(folder / "1.0", "1.0", with_pip=True))
        settings = folder / "settings"
        settings.write_bytes(box.settings)
        os.sync()
        box.manager.start()
        box.wait_for("1.0")
        each: list[dict[str, Any]] = []
        number = 1
        while len(each) < options.cuts:
            number += 1
            mode, version = MODES[number % len(MODES)], f"{number}.0"
            bundle = build_bundle(folder / version, version, mode, with_pip=True)
            old = box.links()[0]
            ended_s, cut = _cut_during(box, bundle, disk, chance, number, folder / "left")
            may_lead_to = (old,) if mode != "good" else (old, version)
            if mode == "good" and ended_s < cut.at_s:
                may_lead_to = (version,)
            each.append(
                {
                    "pending_sectors": cut.num_pending,
                    "kept_sectors": cut.num_kept,
                    **_looked_at(folder / "left", disk.mounted, settings, may_lead_to),
                }
            )
            print(json.dumps(each[-1]), flush=True)
    finally:
        if box is not None:
            box.close()
        disk.close()
    return {
        "cuts": len(each),
        "cuts_with_pending_writes": sum(one["pending_sectors"] > 0 for one in each),
        "cut_at": {step: sum(one["step"] == step for one in each) for step in _steps(each)},
        "faults": [fault for one in each for fault in one["faults"]],
        "each": each,
    }


def _cut_during(
    box: Box, bundle: Path, disk: CutDisk, chance: random.Random, number: int, left: Path
) -> tuple[float, Any]:
    """Update in a child, and cut meanwhile; returns when the update had ended, and the cut."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            Updater(box.layout, box.manager, LIMITS).update(bundle, signed=False)
        except UpdateFailed:
            pass
        finally:
            os.write(writer, str(time.time()).encode())
            os._exit(0)
    os.close(writer)
    mode, most_writes = PLANS[number % len(PLANS)]
    _wait_for(chance.choice(STEPS), box.layout.update_journal, child)
    time.sleep(chance.choice((0.0, chance.uniform(0.0, 0.5))))
    cut = disk.cut(mode, chance.randint(0, most_writes), chance.random(), left)
    os.waitpid(child, 0)
    with os.fdopen(reader) as told:
        return float(told.read()), cut


def _wait_for(step: str, journal: Path, child: int) -> None:
    """Wait until an update has begun a step, or is over without it."""
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        with suppress(FileNotFoundError):
            if f'"{step}"' in journal.read_text():
                return
        time.sleep(0.001)


def _looked_at(
    left: Path, mounted: Path, settings: Path, may_lead_to: tuple[str, ...]
) -> dict[str, Any]:
    """What is found when the box starts from what a cut has left, in its place."""
    apart = ["unshare", "--mount", "--propagation", "private", "sh", "-ec"]
    script = 'mount -o loop "$1" "$2"; shift 2; exec "$@"'
    program = [sys.executable, __file__, "--look"]
    done = subprocess.run(
        [*apart, script, "sh", left, mounted, *program, mounted, settings, *may_lead_to],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    left.unlink()
    if done.returncode:
        return {"step": "none", "faults": [done.stderr.strip().splitlines()[-1]]}
    return json.loads(done.stdout)


def look(mounted: Path, settings: Path, may_lead_to: list[str]) -> dict[str, Any]:
    """Start as a box starts, and look at everything."""
    layout = Layout(mounted / "box")
    journal = layout.update_journal
    step = json.loads(journal.read_bytes())["step"] if journal.exists() else "none"
    faults = []
    Updater(layout, InitScript(layout.root / "init"), LIMITS).recover(restart=False)
    leads_to = layout.current.readlink().name
    if leads_to not in may_lead_to:
        faults.append(f"at {step}: current leads to {leads_to}, wanted one of {may_lead_to}")
    command = [layout.current / "venv/bin/sightline", "doctor"]
    if subprocess.run(command, check=False).returncode:
        faults.append(f"at {step}: {leads_to} does not start")
    if layout.settings.read_bytes() != settings.read_bytes():
        faults.append(f"at {step}: settings differ")
    with closing(sqlite3.connect(layout.database)) as database:
        if database.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
            faults.append(f"at {step}: the database is damaged")
        if not database.execute("SELECT 1 FROM events WHERE id = 'before'").fetchall():
            faults.append(f"at {step}: the event is gone")
    faults += [f"at {step}: {path} is left" for path in (journal, layout.taken) if path.exists()]
    return {"step": step, "faults": faults}


def _steps(each: list[dict[str, Any]]) -> list[str]:
    return sorted({one["step"] for one in each})


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
