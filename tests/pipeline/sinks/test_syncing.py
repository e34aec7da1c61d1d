# SPDX-License-Identifier: Apache-2.0
"""A growing file on its way to the disk."""

import threading
import time
from pathlib import Path

import pytest

from pipeline.sinks import syncing
from pipeline.sinks.syncing import Syncer


def test_what_is_closed_just_as_it_is_about_to_sync_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call to close that comes between the end of the delay and the sync is not lost."""
    closing = threading.Thread(target=lambda: syncer.close(), daemon=True)

    class ClosedAfterTheDelay(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            came = super().wait(timeout)
            if timeout is not None and not came and closing.ident is None:
                closing.start()
                time.sleep(0.1)  # until it waits for the thread that is here
            return came

    monkeypatch.setattr(syncing.threading, "Event", ClosedAfterTheDelay)
    (tmp_path / "a").touch()
    syncer = Syncer(tmp_path / "a", delay_s=0.01)
    syncer.call()
    until_s = time.monotonic() + 10
    while (closing.ident is None or closing.is_alive()) and time.monotonic() < until_s:
        time.sleep(0.01)
    assert closing.ident is not None
    assert not closing.is_alive()
