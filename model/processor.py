# SPDX-License-Identifier: Apache-2.0
"""The processor at hand."""

import platform
from pathlib import Path
from typing import Final

INFORMATION: Final = Path("/proc/cpuinfo")


def cpu_model() -> str:
    """Return the processor's name where the system tells it, else its architecture."""
    return _told("model name") or platform.machine()


def cpu_features() -> frozenset[str]:
    """Return what the processor can do, in the system's words; nothing where it does not tell."""
    return frozenset((_told("flags") or _told("Features")).split())


def _told(name: str) -> str:
    lines = INFORMATION.read_text().splitlines() if INFORMATION.exists() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith(name))
    return next(named, "")
