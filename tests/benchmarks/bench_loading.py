"""Training images per second that loading makes, and the share of time a device waits for them.

The device sleeps for as long as it would take over each batch, so it takes no processor from the
workers: a GPU does that, training on the same cores does not.

python tests/benchmarks/bench_loading.py --data ../shared/street/data.yaml
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from timing import surroundings

from training.augmentation import Augmentation
from training.datasets import read_dataset
from training.loading import Loading, TrainingLoader
from training.records import Split
from training.sampling import Position, Sampling


def main() -> None:
    """Measure every combination in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="train")
    parser.add_argument("--image-sizes", type=int, nargs="+", default=[320, 640])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--store-mb", type=int, nargs="+", default=[0, 2048])
    parser.add_argument("--device-rates", type=float, nargs="+", default=[15, 50, 100])
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args()
    split = read_dataset(options.data)[options.split]
    rows = [
        measure(split, options, image_size, workers, store_mb)
        for image_size in options.image_sizes
        for store_mb in options.store_mb
        for workers in options.workers
    ]
    result = {
        **surroundings(),
        "data": options.data.parent.name,
        "images": len(split),
        "rows": rows,
    }
    print(json.dumps(result, indent=2))


def measure(
    split: Split, options: argparse.Namespace, image_size: int, workers: int, store_mb: int
) -> dict[str, object]:
    """Images per second when nothing else is done, and the waiting of devices of some speeds."""
    loader = TrainingLoader(
        split,
        Sampling(image_size=image_size, batch_size=options.batch_size),
        Augmentation(),
        Loading(workers=workers, store_mb=store_mb),
    )
    # An epoch long enough for every measurement; the store is filled by what comes first.
    batches = loader.batches(Position(), epochs=10_000)
    for _ in range(loader.steps_per_epoch if store_mb else 2 * max(workers, 1) + 2):
        next(batches)
    began = time.perf_counter()
    for _ in range(options.batches):
        next(batches)
    seconds = time.perf_counter() - began
    return {
        "image_size": image_size,
        "workers": workers,
        "store_mb": store_mb,
        "images_per_s": round(options.batches * options.batch_size / seconds, 1),
        "device_waits": {
            f"{rate:g}": waiting(batches, options, rate) for rate in options.device_rates
        },
    }


def waiting(batches: object, options: argparse.Namespace, rate: float) -> float:
    """The share of its time that a device of a rate waits."""
    waited = []
    step_s = options.batch_size / rate
    for _ in range(options.batches):
        began = time.perf_counter()
        next(batches)  # type: ignore[call-overload]
        waited.append(time.perf_counter() - began)
        time.sleep(step_s)
    total = np.sum(waited)
    return round(float(total / (total + options.batches * step_s)), 3)


if __name__ == "__main__":
    main()
