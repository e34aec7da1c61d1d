# SPDX-License-Identifier: Apache-2.0
"""Time an int8 artefact beside the float detector it was made from, on this machine.

Both run in turn, so that what else the machine does strikes both, and the middle of the turns
counts. Every core works: as many requests are in flight as there are cores.
"""

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import UInt8

from model.config import ModelConfig
from model.engines import Engine, build_engine
from model.engines.busy import keep_busy
from model.processor import cpu_model
from model.quantisation import Speed

TURNS: Final = 9
TURN_S: Final = 0.6
"""About how long a turn of the float detector lasts."""


class Cost(NamedTuple):
    """Milliseconds a frame."""

    wall_ms: float
    cpu_ms: float


def time_side_by_side(
    weights: Path, artefact: Path, canvases: Sequence[UInt8[np.ndarray, "H W 3"]]
) -> Speed:
    """Return what a frame costs each of them; the canvases are all of one shape."""
    height, width, _ = canvases[0].shape
    cores = len(os.sched_getaffinity(0))

    def built(model: Path) -> Engine:
        config = ModelConfig(weights=model, engine="openvino")
        return build_engine(config, image_hw=(height, width), num_requests=cores)

    with closing(built(weights)) as exact, closing(built(artefact)) as int8:
        frames = [np.ascontiguousarray(canvas[None]) for canvas in canvases[:16]]
        warm = [run_in_flight(engine, frames, 2 * cores) for engine in (exact, int8)]
        num_frames = max(2 * cores, round(TURN_S * 1000 / max(warm[0].wall_ms, 0.01)))
        turns = [
            (run_in_flight(exact, frames, num_frames), run_in_flight(int8, frames, num_frames))
            for _ in range(TURNS)
        ]
        return Speed(
            cpu=cpu_model(),
            cores=cores,
            canvas_hw=(height, width),
            float_precision=exact.precision,
            float_ms=_middle(turn[0].wall_ms for turn in turns),
            int8_ms=_middle(turn[1].wall_ms for turn in turns),
            float_cpu_ms=_middle(turn[0].cpu_ms for turn in turns),
            int8_cpu_ms=_middle(turn[1].cpu_ms for turn in turns),
        )


def run_in_flight(engine: Engine, frames: Sequence[np.ndarray], num_frames: int) -> Cost:
    """Keep as many requests running as the engine takes, and say what a frame cost."""
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    keep_busy(engine, frames, num_frames)
    wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    return Cost(wall_s * 1000 / num_frames, cpu_s * 1000 / num_frames)


def _middle(values: Iterable[float]) -> float:
    return round(median(values), 3)
