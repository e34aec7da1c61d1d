# SPDX-License-Identifier: Apache-2.0
"""Average precision on COCO images, through an engine and our suppression.

    python tests/benchmarks/bench_accuracy.py --weights t.safetensors --data ../shared/coco128

prints the figures of one engine. `--weights` may be an int8 artefact. With `--table`, every engine
is measured at every size and the table is written as JSON, with how far each engine's predictions
are from those of eager float32:

    python tests/benchmarks/bench_accuracy.py --weights t.safetensors --int8 t-int8.safetensors \
        --data ../shared/coco128 --table tests/benchmarks/results/accuracy.json

Square letterbox, every score above 0.001, IoU 0.7, 300 boxes, every label of an anchor. `--data`
holds `images/` and one `instances_*.json`.
"""

import argparse
import json
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
from timing import surroundings

from model.average_precision import (
    SETTINGS,
    LabelledImages,
    average_precision,
    measure,
    read_coco,
    read_picture,
)
from model.card import read_card
from model.config import ModelConfig
from model.detections import Detections
from model.engines import Engine, build_engine
from model.letterbox import Letterbox, letterbox_image
from model.suppression import suppress

FLOATS = (("torch", "auto"), ("openvino", "accuracy"), ("openvino", "auto"))
SURE = 0.25
"""Score of eager float32 from which an anchor's box is compared."""


def main() -> None:
    options = parse()
    data = read_coco(options.data, read_card(options.weights).classes, limit=options.limit)
    if options.table:
        table = measure_table(options, data)
        options.table.write_text(json.dumps(table, indent=1) + "\n")
        print(json.dumps(table["figures"], indent=1))
    else:
        print(json.dumps(measure_one(options, data), indent=1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Average precision of a weights file.")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument("--limit", type=int, help="only the first images")
    parser.add_argument("--table", type=Path, help="measure every engine and write this file")
    parser.add_argument("--int8", type=Path, help="an artefact of the same weights, for --table")
    parser.add_argument("--sizes", type=int, nargs="+", default=[640, 320], help="for --table")
    return parser.parse_args()


def measure_one(options: argparse.Namespace, data: LabelledImages) -> dict[str, Any]:
    started = time.perf_counter()
    with closing(make(options.weights, options.engine, options.precision, options.image_size)) as e:
        return {
            "engine": e.name,
            "precision": e.precision,
            "image_size": options.image_size,
            "images": len(data.paths),
            **measure(e, data),
            "seconds": round(time.perf_counter() - started, 1),
        }


def make(weights: Path, engine: str, precision: str, size: int) -> Engine:
    config = ModelConfig(weights=weights, engine=engine, precision=precision, image_size=size)
    return build_engine(config, image_hw=(size, size), num_requests=1)


def measure_table(options: argparse.Namespace, data: LabelledImages) -> dict[str, Any]:
    card = read_card(options.weights)
    figures = [row for size in options.sizes for row in measure_size(options, data, size)]
    table = {
        **surroundings(),
        "scale": card.scale,
        "weights_source": card.source,
        "data": data.name,
        "images": len(data.paths),
        "figures": figures,
    }
    if options.int8:
        quantisation = read_card(options.int8).quantisation
        assert quantisation is not None, "--int8 names an artefact of sightline export"
        table["int8"] = quantisation.model_dump(mode="json", exclude={"graph_sha256"})
    return table


def measure_size(
    options: argparse.Namespace, data: LabelledImages, size: int
) -> list[dict[str, Any]]:
    """Show every image to every engine, the eager one first, which the others are compared with."""
    with ExitStack() as stack:
        kinds = [(options.weights, *kind) for kind in FLOATS]
        kinds += [(options.int8, "openvino", "auto")] if options.int8 else []
        engines = [stack.enter_context(closing(make(*kind, size))) for kind in kinds]
        found: list[dict[int, Detections]] = [{} for _ in engines]
        furthest = [np.zeros(3) for _ in engines]
        for image_id, path in data.paths.items():
            image = read_picture(path)
            letterbox = Letterbox.fit(image.shape[:2], (size, size))
            canvas = letterbox_image(image, letterbox)[None]
            predictions = [engine.infer(canvas)[0] for engine in engines]
            for place, values in enumerate(predictions):
                boxes = suppress(values, SETTINGS)
                found[place][image_id] = Detections(
                    xyxy=letterbox.to_source(boxes.xyxy),
                    score=boxes.score,
                    class_id=boxes.class_id,
                )
                furthest[place] = np.maximum(furthest[place], distance(predictions[0], values))
        return [
            {
                "engine": engine.name,
                "asked": kind[2],
                "precision": engine.precision,
                "image_size": size,
                **average_precision(data.truth, boxes),
                "max_score_deviation": round(float(far[0]), 6),
                "max_box_deviation_px": round(float(far[1]), 4),
                "max_sure_box_deviation_px": round(float(far[2]), 4),
            }
            for kind, engine, boxes, far in zip(kinds, engines, found, furthest, strict=True)
        ]


def distance(reference: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Largest difference of any score, any box side, and any side of a box that counts."""
    apart = np.abs(reference - values)
    sure = reference[4:].max(axis=0) >= SURE
    return np.array([apart[4:].max(), apart[:4].max(), apart[:4, sure].max(initial=0)])


if __name__ == "__main__":
    main()
