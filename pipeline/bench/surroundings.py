# SPDX-License-Identifier: Apache-2.0
"""What every benchmark says about itself (machine, versions, commit), and how it sums up runs."""

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from model.processor import cpu_model

_PACKAGES = ("torch", "openvino", "av", "opencv-python", "numpy", "trackers", "pyzmq")


def surroundings() -> dict[str, Any]:
    """Machine, versions and commit, as every result records them."""
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _PACKAGES},
        "commit": _commit(),
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most of the runs."""
    return {
        "median": round(median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
        "runs": len(values),
    }


def percentile(values: Sequence[float], share: float) -> float:
    """A percentile by the nearest rank."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(len(ranked) * share))]


def _commit() -> str | None:
    """The commit this code is of, with a `+` where files were changed since."""
    root = Path(__file__).parents[2]
    try:
        git = subprocess.run(
            ["git", "describe", "--always", "--exclude=*", "--dirty=+"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):  # installed without its history
        return None
    return git.stdout.strip()
