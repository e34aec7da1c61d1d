# SPDX-License-Identifier: Apache-2.0
"""What looking at a machine gives."""

from dataclasses import dataclass
from importlib.util import find_spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at."""

    name: str
    present: bool
    detail: str
    optional: bool = False
    """Whether a run does without it."""


def importable(module: str) -> bool:
    """Whether a module is installed, told without importing it."""
    return find_spec(module) is not None
