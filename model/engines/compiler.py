# SPDX-License-Identifier: Apache-2.0
"""What torch needs to compile for a processor: a C++ compiler and Python's headers."""

import os
import shutil
import sysconfig
from pathlib import Path

from model.errors import EngineError


def missing_compiler() -> str | None:
    """Say what torch lacks to compile here, and how to get it; nothing if it lacks nothing."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return f"no C++ compiler ({compiler}); install one with: apt-get install -y g++"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        return "no headers of Python; install them with: apt-get install -y python3-dev"
    return None


def require_compiler(what: str) -> None:
    """Refuse what would have to be compiled and cannot be."""
    missing = missing_compiler()
    if missing is not None:
        raise EngineError(f"{what} is compiled by torch, and here is {missing}")
