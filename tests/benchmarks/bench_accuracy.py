# SPDX-License-Identifier: Apache-2.0
"""Average precision of a weights file on COCO images, through an engine and our suppression.

    python tests/benchmarks/bench_accuracy.py --weights t.safetensors --data ../shared/coco128

Square letterbox, every score above 0.001, IoU 0.7, 300 boxes, every label of an anchor. `--data`
holds `images/` and one `instances_*.json`.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from PIL import Image

from model.config import ModelConfig, Suppression
from model.detections import Detections
from model.engines import Engine, build_engine
from model.letterbox import Letterbox, letterbox_image
from model.suppression import suppress

SETTINGS = Suppression(min_score=0.001, max_iou=0.7, max_boxes=300)


def main() -> None:
    options = parse()
    config = ModelConfig(
        weights=options.weights,
        engine=options.engine,
        precision=options.precision,
        image_size=options.image_size,
    )
    engine = build_engine(config, image_hw=(config.image_size, config.image_size), num_requests=1)
    started = time.perf_counter()
    truth = COCO(str(next(options.data.glob("instances_*.json"))))
    image_ids = sorted(truth.getImgIds())[: options.limit]
    results = [
        result
        for image_id in image_ids
        for result in as_coco(image_id, detect(engine, picture(options.data, truth, image_id)))
    ]
    figures = {
        "engine": engine.name,
        "precision": engine.precision,
        "image_size": config.image_size,
        "images": len(image_ids),
        "boxes": len(results),
        **average_precision(truth, image_ids, results),
        "seconds": round(time.perf_counter() - started, 1),
    }
    engine.close()
    print(json.dumps(figures, indent=1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Average precision of a weights file.")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument("--limit", type=int, help="only the first images")
    return parser.parse_args()


def picture(data: Path, truth: COCO, image_id: int) -> np.ndarray:
    name = Path(truth.loadImgs([image_id])[0]["file_name"]).name
    path = next((data / "images").rglob(name))
    return np.asarray(Image.open(path).convert("RGB"))


def detect(engine: Engine, image: np.ndarray) -> Detections:
    """Find every box that could count, in pixels of the image."""
    _, height, width, _ = engine.input_shape
    letterbox = Letterbox.fit((image.shape[0], image.shape[1]), (height, width))
    predictions = engine.infer(letterbox_image(image, letterbox)[None])[0]
    found = suppress(predictions, SETTINGS, multi_label=True)
    return Detections(
        xyxy=letterbox.to_source(found.xyxy), score=found.score, class_id=found.class_id
    )


def as_coco(image_id: int, found: Detections) -> Iterator[dict[str, Any]]:
    """Boxes as COCO results: left, top, width, height, to 3 decimals; scores to 5."""
    for xyxy, score, class_id in zip(found.xyxy, found.score, found.class_id, strict=True):
        left, top, right, bottom = map(float, xyxy)
        yield {
            "image_id": image_id,
            "category_id": int(class_id),
            "bbox": [round(side, 3) for side in (left, top, right - left, bottom - top)],
            "score": round(float(score), 5),
        }


def average_precision(
    truth: COCO, image_ids: list[int], results: list[dict[str, Any]]
) -> dict[str, float]:
    """COCO's figures; the evaluator prints on the way, which goes to standard error."""
    printed, sys.stdout = sys.stdout, sys.stderr
    try:
        evaluation = COCOeval_faster(truth, truth.loadRes(results), "bbox", print_function=print)
        evaluation.params.imgIds = image_ids
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    finally:
        sys.stdout = printed
    names = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
    return {
        name: round(float(value), 4)
        for name, value in zip(names, evaluation.stats[:6], strict=True)
    }


if __name__ == "__main__":
    main()
