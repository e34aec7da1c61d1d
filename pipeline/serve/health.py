# SPDX-License-Identifier: Apache-2.0
"""How this machine does, as the collector of its fleet is told."""

import time
from collections.abc import Mapping
from importlib.metadata import version
from itertools import islice
from typing import Any

from pipeline.metrics import DROPPED
from pipeline.transport.fleetwire import MOST_CAMERAS, MOST_TEXT, CameraHealth, Report


def report_of(status: Mapping[str, Any]) -> Report:
    """What of a status leaves the machine: no address, no path, no address of a receiver."""
    events = status["events"]
    fleet = events["receivers"].get("fleet", {})
    return Report(
        at_s=time.time(),
        since_s=status["since"],
        version=version("sightline"),
        model=status["model"]["weights"].rpartition("/")[2][:MOST_TEXT],
        writable=events["writable"],
        lost=events["lost"],
        waiting=fleet.get("waiting", 0),
        dropped=fleet.get("dropped", 0),
        cameras={
            name: _camera(camera)
            for name, camera in islice(status["cameras"].items(), MOST_CAMERAS)
        },
    )


def _camera(camera: Mapping[str, Any]) -> CameraHealth:
    counters = camera["counters"]
    reason = (camera["reason"] or "").replace(camera["source"], "its source")
    return CameraHealth(
        state=camera["state"],
        reason=reason[:MOST_TEXT] or None,
        decoded_fps=camera["decoded_fps"],
        tracked_fps=camera["tracked_fps"],
        decoded=counters["decoded"],
        tracked=counters["tracked"],
        dropped=sum(counters[name] for name in DROPPED),
    )
