# SPDX-License-Identifier: Apache-2.0
"""Nothing is lost or doubled by kill -9 of either side."""

import signal
import sqlite3
from pathlib import Path

from tests.pipeline.fleet.processes import (
    KILL,
    BoxProcess,
    CollectorProcess,
    free_port,
    rows_of,
    write_settings,
)
from tests.pipeline.fleet.world import Fleet
from tests.pipeline.telling.builders import wait_until


def num_rows(folder: Path) -> int:
    try:
        return len(rows_of(folder))
    except sqlite3.Error:  # it is not made yet
        return 0


def test_kill_9_of_either_side_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    Fleet(tmp_path, "gate")
    port = free_port()
    collector = CollectorProcess(write_settings(tmp_path, port), tmp_path / "log")
    box = BoxProcess(tmp_path, "gate", f"tcp://127.0.0.1:{port}", rate=200.0)
    try:
        wait_until(lambda: num_rows(tmp_path) > 50, 60.0)
        assert collector.end(KILL) == -KILL
        kept = box.num_kept
        wait_until(lambda: box.num_kept > kept + 50)
        box.kill()
        box.start()
        collector.start()
        seen = num_rows(tmp_path)
        wait_until(lambda: num_rows(tmp_path) > seen + 50, 60.0)
        box.finish(60.0)
        assert collector.end(signal.SIGTERM) == 0
    finally:
        box.kill()
        collector.process.kill()
    numbers = [number for _, number, _, _ in rows_of(tmp_path)]
    assert numbers == sorted(set(numbers))
    assert numbers[: box.num_kept] == list(range(box.num_kept))
