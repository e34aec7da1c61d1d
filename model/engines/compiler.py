# SPDX-License-Identifier: Apache-2.0
"""What torch needs to compile for a processor: a C++ compiler and Python's headers."""

import os
import shutil
import sysconfig
from pathlib import Path
from typing import Final

from model.engines.cache import cache_folder
from model.errors import EngineError

CACHE_VARIABLE: Final = "TORCHINDUCTOR_CACHE_DIR"


def missing_compiler() -> str | None:
    """Say what torch lacks to compile here, and how to get it; nothing if it lacks nothing."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return f"no C++ compiler ({compiler}); install one with: apt-get install -y g++"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        return "no headers of Python; install them with: apt-get install -y python3-dev"
    return None


def prepare_compiler(what: str) -> None:
    """Refuse what would have to be compiled and cannot be; keep what is compiled with our cache.

    Torch's own place is a folder in /tmp that anybody can guess. What the user names stays.
    """
    missing = missing_compiler()
    if missing is not None:
        raise EngineError(f"{what} is compiled by torch, and here is {missing}")
    if cache_folder().parent != Path(os.devnull):
        os.environ.setdefault(CACHE_VARIABLE, str(cache_folder() / "inductor"))
