# SPDX-License-Identifier: Apache-2.0
"""What slices find of small objects, and what they cost.

    python tests/benchmarks/bench_slices.py --weights t.safetensors --data ../shared/coco128

There are no labelled pictures of 4K here, so COCO images are set in scenes of 3 x 3, each cell of
640 x 480: a scene of 1920 x 1440 is shrunk to a third on a canvas of 480 x 640, and with it every
object. Scenes go the way of a decoded frame: YUV 4:2:0, `FrameScaler`, the engine, suppression.
Small, medium and large are COCO's, by the area in the scene. AP is of every score above 0.001 and
every label of an anchor; the time of suppression is that of a run, with scores above 0.1.
Milliseconds are processor time of the whole process, so that other load on the machine adds little.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
from av.video.reformatter import Colorspace
from PIL import Image
from timing import surroundings

sys.path.insert(0, str(Path(__file__).parents[2]))

from model.average_precision import (
    SETTINGS,
    LabelledImages,
    average_precision,
    read_coco,
    read_picture,
)
from model.card import read_card
from model.config import ModelConfig, Suppression
from model.detections import Detections
from model.engines import build_engine
from model.letterbox import rectangle
from model.merging import suppress_looks
from model.slicing import Region, choose_looks
from pipeline.decoding.scaling import FrameScaler

CELL_HW, GRID = (480, 640), 3
SCENE_HW = (GRID * CELL_HW[0], GRID * CELL_HW[1])
LIVE = Suppression(min_score=0.1)
WARM_UP = 2


@dataclass(frozen=True)
class Scene:
    """Images of COCO in one picture, and where their objects are in it."""

    frame: av.VideoFrame
    annotations: list[dict[str, Any]]


def main() -> None:
    """Measure every budget over the same scenes and print one JSON object."""
    options = parse()
    data = read_coco(options.data, read_card(options.weights).classes)
    image_ids = sorted(data.paths)
    groups = [image_ids[n : n + GRID**2] for n in range(0, len(image_ids), GRID**2)]
    scenes = [make_scene(data, group) for group in groups]
    scene_truth = join_truth(data, scenes)
    model = ModelConfig(weights=options.weights, image_size=options.image_size)
    results = [measure(model, budget, scenes, scene_truth) for budget in options.budgets]
    result = {
        **surroundings(),
        "scenes": len(scenes),
        "scene_hw": SCENE_HW,
        "images": len(image_ids),
        "objects": sum(len(scene.annotations) for scene in scenes),
        "image_size": options.image_size,
        "results": results,
    }
    print(json.dumps(result, indent=2))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument("--budgets", type=int, nargs="+", default=[1, 5, 10, 17])
    return parser.parse_args()


def make_scene(data: LabelledImages, image_ids: list[int]) -> Scene:
    """Set images in the middle of their cells, shrunk where they do not fit."""
    scene = np.full((*SCENE_HW, 3), 114, np.uint8)
    annotations: list[dict[str, Any]] = []
    height, width = CELL_HW
    for place, image_id in enumerate(image_ids):
        image = Image.fromarray(read_picture(data.paths[image_id]))
        scale = min(1.0, width / image.width, height / image.height)
        if scale < 1:
            size = (round(image.width * scale), round(image.height * scale))
            image = image.resize(size, Image.Resampling.BILINEAR)
        left = place % GRID * width + (width - image.width) // 2
        top = place // GRID * height + (height - image.height) // 2
        scene[top : top + image.height, left : left + image.width] = np.asarray(image)
        for each in data.truth["annotations"]:
            if each["image_id"] != image_id:
                continue
            x, y, across, down = (side * scale for side in each["bbox"])
            annotations.append(
                {
                    "category_id": each["category_id"],
                    "bbox": [left + x, top + y, across, down],
                    "area": each["area"] * scale**2,
                    "iscrowd": each["iscrowd"],
                }
            )
    frame = av.VideoFrame.from_ndarray(scene, format="rgb24")
    return Scene(frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709), annotations)


def join_truth(data: LabelledImages, scenes: list[Scene]) -> dict[str, Any]:
    """The boxes of all scenes in COCO's form."""
    height, width = SCENE_HW
    return {
        "images": [{"id": n, "height": height, "width": width} for n in range(len(scenes))],
        "annotations": [
            {"id": 1000 * number + place + 1, "image_id": number, **each}
            for number, scene in enumerate(scenes)
            for place, each in enumerate(scene.annotations)
        ],
        "categories": data.truth["categories"],
    }


def measure(
    model: ModelConfig, budget: int, scenes: list[Scene], truth: dict[str, Any]
) -> dict[str, Any]:
    """AP and processor time with so many looks at most; with one, there are no slices."""
    canvas_hw = rectangle(SCENE_HW, model.image_size)
    regions = choose_looks(SCENE_HW, canvas_hw, budget, 0.2)
    engine = build_engine(model, image_hw=canvas_hw, batch=len(regions), num_requests=1)
    scaler, canvases = FrameScaler(0), np.empty(engine.input_shape, np.uint8)
    found: dict[int, Detections] = {}
    steps: list[dict[str, float]] = []
    for number, scene in [*enumerate(scenes[:WARM_UP]), *enumerate(scenes)]:
        times = [time.process_time()]
        scaler.looks(scene.frame, regions, canvases)
        times.append(time.process_time())
        rows = engine.infer(canvases)
        times.append(time.process_time())
        suppress_looks(rows, regions, canvas_hw, LIVE)
        times.append(time.process_time())
        steps.append(
            {
                name: (end - begin) * 1000
                for name, begin, end in zip(
                    ("scale", "infer", "suppress"), times, times[1:], strict=False
                )
            }
        )
        if len(steps) > WARM_UP:
            found[number] = suppress_looks(rows, regions, canvas_hw, SETTINGS)
    engine.close()
    cpu_ms = {name: round(median(s[name] for s in steps[WARM_UP:]), 2) for name in steps[0]}
    return {
        "budget": budget,
        "looks": len(regions),
        "magnification": round(
            scale_of(regions[-1], canvas_hw) / scale_of(regions[0], canvas_hw), 2
        ),
        "precision": engine.precision,
        **average_precision(truth, found),
        "cpu_ms_per_frame": {**cpu_ms, "all": round(sum(cpu_ms.values()), 2)},
    }


def scale_of(region: Region, canvas_hw: tuple[int, int]) -> float:
    return region.letterbox(canvas_hw).resized_hw[1] / region.width


if __name__ == "__main__":
    main()
