# SPDX-License-Identifier: Apache-2.0
"""The processor at hand."""

import platform
from pathlib import Path


def cpu_model() -> str:
    """Return the processor's name where the system tells it, else its architecture."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
