"""What every benchmark says about itself: the machine, the versions, the commit."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any


def surroundings() -> dict[str, Any]:
    """Machine, versions and commit, as every result records them."""
    root = Path(__file__).parents[2]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True
    ).stdout.strip()
    names = ("torch", "openvino", "av", "opencv-python", "numpy", "trackers", "pyzmq")
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names},
        "commit": commit or None,
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and most of the runs."""
    return {
        "median": round(median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
        "runs": len(values),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()
