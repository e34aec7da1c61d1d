# SPDX-License-Identifier: Apache-2.0
"""Whether the `cuda` engine can run here, told without importing torch or CuPy.

The driver itself is asked, because it knows `CUDA_VISIBLE_DEVICES` and machines without files in
/dev. What it answers where there is a GPU was never seen.
"""

import ctypes
import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

DRIVER: Final = "libcuda.so.1"


@dataclass(frozen=True, slots=True)
class Driver:
    """What NVIDIA's driver says."""

    num_devices: int
    fault: str
    """Why there is no device, if there is none."""


def num_devices() -> int:
    """Return how many GPUs this process may use."""
    return ask_driver().num_devices


def what_lacks() -> str | None:
    """Say what the `cuda` engine needs and does not find; nothing if it finds all."""
    driver = ask_driver()
    if driver.num_devices == 0:
        return f"an NVIDIA GPU, and {driver.fault}"
    if not _torch_is_for_cuda():
        return "torch with CUDA, and the one installed is without; install another build of torch"
    if find_spec("cupy") is None:
        return "CuPy (extra: gpu); install it with: pip install -e '.[gpu]'"
    return None


@cache
def ask_driver() -> Driver:
    """Ask the driver once in the life of the process."""
    try:
        library = ctypes.CDLL(DRIVER)
    except OSError:
        return Driver(0, f"its driver ({DRIVER}) is not on this machine")
    count = ctypes.c_int(0)
    error = library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count))
    if error:
        return Driver(0, f"its driver ({DRIVER}) finds none: error {error} of CUDA")
    return Driver(count.value, "" if count.value else f"its driver ({DRIVER}) counts none")


def _torch_is_for_cuda() -> bool:
    """Read from torch's own note of what it was built for."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    note = Path(spec.origin).with_name("version.py")
    return note.is_file() and re.search(r"^cuda\b.*= *['\"]", note.read_text(), re.M) is not None
