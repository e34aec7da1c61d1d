# SPDX-License-Identifier: Apache-2.0
"""Time and surroundings of what runs on a GPU. What needs one has never run."""

import importlib.util
import sys
from collections.abc import Callable
from importlib.metadata import version
from statistics import median
from typing import Any, NoReturn

from model.cuda.device import Device, Stream

WARM_UPS, RUNS = 10, 50
COPIED_BYTES = 4 * 2**30
_PACKAGES = ("torch", "cupy", "numpy")


def missing_gpu() -> str | None:
    """Say what a benchmark on a GPU lacks here; nothing if it lacks nothing."""
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed"
    import torch

    return None if torch.cuda.is_available() else "torch finds no GPU"


def stop_without_gpu(program: str) -> None:
    """End with exit 2 and one line where there is no GPU."""
    missing = missing_gpu()
    if missing is not None:
        _stop(f"{program}: measures an NVIDIA GPU, and here {missing}")


def gpu_surroundings(device: Device) -> dict[str, Any]:
    """Card, driver's CUDA and versions, as every result records them."""
    import torch

    card = torch.cuda.get_device_properties(device.index)
    return {
        "gpu": card.name,
        "multiprocessors": card.multi_processor_count,
        "l2_mb": round(card.L2_cache_size / 1e6, 1),
        "cuda": torch.version.cuda,
        "versions": {name: version(_distribution(name)) for name in _PACKAGES},
    }


def time_us(device: Device, stream: Stream, run: Callable[[], None]) -> dict[str, float]:
    """Microseconds of what `run` puts on a stream, captured once and replayed."""
    captured = device.capture(stream, run, pool=None)
    return time_each_us(stream, lambda: captured.replay(stream))


def time_each_us(stream: Stream, run: Callable[[], object]) -> dict[str, float]:
    """Microseconds of `run` on a stream, each time by two events of the device."""
    import torch

    on = torch.cuda.ExternalStream(stream.handle)
    for _ in range(WARM_UPS):
        run()
    pairs = [tuple(torch.cuda.Event(enable_timing=True) for _ in range(2)) for _ in range(RUNS)]
    for began, ended in pairs:
        began.record(on)
        run()
        ended.record(on)
    on.synchronize()
    return percentiles([began.elapsed_time(ended) * 1000 for began, ended in pairs])


def percentiles(times_us: list[float]) -> dict[str, float]:
    """Median, p90 and p99 by the nearest rank, and how many there were."""
    ranked = sorted(times_us)
    high, highest = (
        ranked[min(int(len(ranked) * share), len(ranked) - 1)] for share in (0.9, 0.99)
    )
    return {
        "median": round(median(ranked), 2),
        "p90": round(high, 2),
        "p99": round(highest, 2),
        "runs": len(ranked),
    }


def copy_bytes_per_s(device: Device, stream: Stream) -> float:
    """What a copy within the device's memory moves, read and written."""
    import torch

    source, to = (device.empty((COPIED_BYTES,), torch.uint8) for _ in range(2))

    def copy() -> None:
        with torch.cuda.stream(torch.cuda.ExternalStream(stream.handle)):
            to.copy_(source, non_blocking=True)

    return 2 * COPIED_BYTES / time_each_us(stream, copy)["median"] * 1e6


def _distribution(package: str) -> str:
    """Under which name a package is installed: CuPy's has CUDA's version in it."""
    from importlib.metadata import packages_distributions

    return packages_distributions()[package][0]


def _stop(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    raise SystemExit(2)
