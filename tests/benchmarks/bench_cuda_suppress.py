# SPDX-License-Identifier: Apache-2.0
"""Suppression on a GPU against torchvision's, on the same boxes and scores.

    python -m tests.benchmarks.bench_cuda_suppress

It has never run. Both sides begin with boxes, best scores and labels of 8400 anchors, and end with
the best 300 boxes on the device. Ours ranks by one sort of keys and runs the kernel, for the whole
batch; `captured` is the same as one graph. torchvision's runs image by image, and for the whole
batch with the image beside the label (`batched`). `equal` compares with the processor's.
"""

import argparse
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from model.config import Suppression
from model.cuda.device import Device, Stream
from model.cuda.source import FOUND_HEAD, FOUND_ROW, suppress_launch
from model.suppression import MAX_CANDIDATES, suppress
from tests.benchmarks.cuda_timing import (
    gpu_surroundings,
    stop_without_gpu,
    time_each_us,
    time_us,
)
from tests.model.cuda.kernels import detections_of

if TYPE_CHECKING:
    import torch

NUM_CLASSES, CANVAS = 80, 640
STRIDES = (8, 16, 32)
BATCHES, MIN_SCORES = (1, 8, 32), (0.001, 0.25)
NONE = 2**63 - 1


class Found(NamedTuple):
    """What a detector says of a batch: of each anchor its box, best score and label."""

    boxes: "torch.Tensor"
    scores: "torch.Tensor"
    labels: "torch.Tensor"


def main() -> None:
    """Measure every batch and limit, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, default=40)
    options = parser.parse_args()
    stop_without_gpu("bench_cuda_suppress")
    from tests.model.cuda.cuda_machine import open_device

    device = open_device()
    stream = device.stream()
    cases = [
        measure(device, stream, batch, Suppression(min_score=min_score), options.objects)
        for min_score in MIN_SCORES
        for batch in BATCHES
    ]
    print(json.dumps({**gpu_surroundings(device), "cases": cases}, indent=2))


def make_predictions(num_objects: int, seed: int) -> np.ndarray:
    """Rows of one image as a detector makes them: high scores and like boxes around each object.

    Elsewhere the best of an anchor's logits lies about -7, a score of .001.
    """
    random = np.random.default_rng(seed)
    centres, strides = anchors()
    size = strides * random.uniform(2, 8, (2, len(strides)))
    boxes = np.concatenate((centres - size / 2, centres + size / 2))
    logits = random.normal(-9.5, 1, (NUM_CLASSES, len(strides)))
    for _ in range(num_objects):
        middle, side = random.uniform(0, CANVAS, 2), random.uniform(20, 200, 2)
        near = (np.abs(centres - middle[:, None]) < side[:, None] / 3).all(axis=0)
        shift = random.normal(0, 2, (4, int(near.sum())))
        boxes[:, near] = np.concatenate((middle - side / 2, middle + side / 2))[:, None] + shift
        logits[random.integers(NUM_CLASSES), near] = random.normal(0, 1.5, int(near.sum()))
    return np.concatenate((boxes, 1 / (1 + np.exp(-logits)))).astype(np.float32)


def anchors() -> tuple[np.ndarray, np.ndarray]:
    """Centres, 2 x 8400, and strides of the anchor points of a square canvas."""
    centres, strides = [], []
    for stride in STRIDES:
        places = np.mgrid[: CANVAS // stride, : CANVAS // stride].reshape(2, -1)
        centres.append((places[::-1] + 0.5) * stride)
        strides.append(np.full(places.shape[1], stride))
    return np.concatenate(centres, axis=1), np.concatenate(strides)


def measure(
    device: Device, stream: Stream, batch: int, limits: Suppression, num_objects: int
) -> dict[str, Any]:
    """Time both sides on one batch."""
    import torch

    images = [make_predictions(num_objects, seed) for seed in range(batch)]
    rows = device.empty((batch, *images[0].shape), torch.float32)
    rows.copy_(torch.from_numpy(np.stack(images)))
    scores, labels = rows[:, 4:].max(dim=1)
    found = Found(rows[:, :4].transpose(1, 2).contiguous(), scores, labels)
    ours = Ours(device, stream, batch, limits)
    on = torch.cuda.stream(torch.cuda.ExternalStream(stream.handle))
    torch.cuda.synchronize()
    with on:
        result = {
            "batch": batch,
            "min_score": limits.min_score,
            "candidates": round(float((scores > limits.min_score).sum() / batch), 1),
            "ours_us": time_each_us(stream, lambda: ours.run(found)),
            "captured_us": time_us(device, stream, lambda: ours.run(found)),
            **torchvision_us(stream, found, limits),
        }
        made = ours.found.cpu().numpy()
    expected = [suppress(image, limits) for image in images]
    return result | {
        "kept": round(float(made[:, 0].mean()), 1),
        "equal": all(
            np.array_equal(detections_of(row).xyxy, each.xyxy)
            and np.array_equal(detections_of(row).score, each.score)
            and np.array_equal(detections_of(row).class_id, each.class_id)
            for row, each in zip(made, expected, strict=True)
        ),
    }


class Ours:
    """Keys, one sort, the kernel."""

    def __init__(self, device: Device, stream: Stream, batch: int, limits: Suppression) -> None:
        import torch

        self._device, self._stream, self._limits = device, stream, limits
        words = FOUND_HEAD + FOUND_ROW * limits.max_boxes
        self.found = device.empty((batch, words), torch.int32)
        self._tickets = device.empty((batch,), torch.int32)
        self._tickets.zero_()

    def run(self, found: Found) -> None:
        """Put one batch on the stream."""
        ranked = ranked_keys(found, self._limits.min_score)
        batch, num_keys = ranked.shape
        args = (
            ranked.data_ptr(),
            found.boxes.data_ptr(),
            self._tickets.data_ptr(),
            1,
            num_keys,
            found.boxes.shape[1],
            NUM_CLASSES,
            self._limits.max_boxes,
            self._limits.max_iou,
            int(self._limits.class_aware),
            self.found.data_ptr(),
        )
        launch = suppress_launch(batch)
        most = self._limits.max_boxes
        self._device.launch(
            "suppress_ranked", launch.grid, launch.block, args, self._stream, MAX_BOXES=most
        )


def ranked_keys(found: Found, min_score: float) -> "torch.Tensor":
    """The keys of a batch in the order in which suppression takes candidates."""
    import torch

    num_anchors = found.scores.shape[1]
    place = torch.arange(num_anchors, device=found.scores.device) * NUM_CLASSES + found.labels
    bits = found.scores.view(torch.int32).to(torch.int64)
    keys = torch.where(found.scores > min_score, (0x7FFFFFFF - bits) << 32 | place, NONE)
    return torch.sort(keys, dim=1).values[:, :MAX_CANDIDATES].contiguous()


def torchvision_us(stream: Stream, found: Found, limits: Suppression) -> dict[str, Any]:
    """Times of torchvision's suppression; why there are none where it is not installed."""
    try:
        from torchvision.ops import batched_nms
    except ImportError:
        return {"torchvision": "not installed"}
    return {
        "torchvision_us": time_each_us(stream, lambda: by_image(batched_nms, found, limits)),
        "torchvision_batched_us": time_each_us(stream, lambda: at_once(batched_nms, found, limits)),
    }


def by_image(batched_nms: Callable[..., Any], found: Found, limits: Suppression) -> list[Any]:
    """Places of the boxes that torchvision keeps, image by image."""
    kept = []
    for boxes, scores, labels in zip(*found, strict=True):
        chosen = (scores > limits.min_score).nonzero().squeeze(1)
        order = batched_nms(boxes[chosen], scores[chosen], labels[chosen], limits.max_iou)
        kept.append(chosen[order[: limits.max_boxes]])
    return kept


def at_once(batched_nms: Callable[..., Any], found: Found, limits: Suppression) -> list[Any]:
    """The same by one call: labels of different images are different labels."""
    import torch

    batch, num_anchors = found.scores.shape
    image = torch.arange(batch, device=found.scores.device)[:, None].expand(-1, num_anchors)
    scores, boxes = found.scores.flatten(), found.boxes.flatten(0, 1)
    labels = (image * NUM_CLASSES + found.labels).flatten()
    chosen = (scores > limits.min_score).nonzero().squeeze(1)
    order = batched_nms(boxes[chosen], scores[chosen], labels[chosen], limits.max_iou)
    kept, of = chosen[order], image.flatten()[chosen[order]]
    return [kept[of == each][: limits.max_boxes] for each in range(batch)]


if __name__ == "__main__":
    main()
