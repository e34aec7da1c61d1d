"""Batches across streams or requests side by side: what the engine at hand does faster.

    python tests/benchmarks/bench_batches.py --weights t.safetensors s.safetensors

Pictures a second and processor milliseconds a picture for every number of requests in flight and
pictures a request, run in turn; medians. The pictures are noise: the detector's cost does not
depend on what it sees.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from timing import spread, surroundings

from model.card import read_card
from model.config import ModelConfig
from model.engines import build_engine
from model.engines.busy import keep_busy

SIDES = ((1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (1, 4), (2, 4), (1, 8))
"""Requests in flight, and pictures in each."""


def main() -> None:
    """Measure all sides in turn and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, nargs="+", required=True)
    parser.add_argument("--canvas", default="384x640", help="HEIGHTxWIDTH")
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    result = {
        **surroundings(),
        "canvas": options.canvas,
        "models": [measure(weights, options) for weights in options.weights],
    }
    print(json.dumps(result, indent=2))


def measure(weights: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All sides of one model, run in turn."""
    height, width = map(int, options.canvas.split("x"))
    random = np.random.default_rng(0)
    engines = {
        (requests, batch): build_engine(
            ModelConfig(weights=weights),
            image_hw=(height, width),
            batch=batch,
            num_requests=requests,
        )
        for requests, batch in SIDES
    }
    canvases = {
        batch: tuple(random.integers(0, 256, (batch, height, width, 3), np.uint8) for _ in range(4))
        for _, batch in SIDES
    }
    times: dict[tuple[int, int], list[tuple[float, float]]] = {side: [] for side in SIDES}
    for run in range(options.runs + 1):
        for side, engine in engines.items():
            began = time.perf_counter(), time.process_time()
            done = side[1] * keep_busy(engine, canvases[side[1]], options.images // side[1])
            wall_s, cpu_s = time.perf_counter() - began[0], time.process_time() - began[1]
            if run:  # the first one warms up
                times[side].append((done / wall_s, cpu_s / done * 1000))
    for engine in engines.values():
        engine.close()
    return {
        "scale": read_card(weights).scale,
        "precision": engines[SIDES[0]].precision,
        "sides": [
            {
                "requests": requests,
                "batch": batch,
                "images_per_s": spread([rate for rate, _ in times[requests, batch]]),
                "cpu_ms": spread([cpu for _, cpu in times[requests, batch]]),
            }
            for requests, batch in SIDES
        ],
    }


if __name__ == "__main__":
    main()
