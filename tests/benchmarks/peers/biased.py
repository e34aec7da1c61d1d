"""Random weights that find about 20 boxes a frame, to measure sizes that have no weights.

    python tests/benchmarks/peers/biased.py --scale C --clip people.mp4 --output c.safetensors

Speed depends on the weights only through the number of boxes. The class biases are moved together
until so many boxes of a few frames of the clip survive score 0.25 and IoU 0.7.
"""

import argparse
import math
from itertools import islice
from pathlib import Path
from typing import get_args

import av
import numpy as np
import torch
from torch import nn

from model.card import Card
from model.config import Suppression
from model.head import LEVELS, LevelLogits, Logits, decode
from model.letterbox import Letterbox, letterbox_image, rectangle
from model.network import Detector
from model.reparam import fuse
from model.scales import SCALES, ScaleName
from model.suppression import suppress
from model.weights import save_weights

NUM_CLASSES = 80
SETTINGS = Suppression(min_score=0.25, max_iou=0.7)
SPREAD = 4.0
"""Standard deviation of the class scores over anchors and classes, before the sigmoid: what a
trained detector shows. It leaves a handful of low boxes beside each that counts."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", choices=get_args(ScaleName), required=True)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--boxes", type=int, default=20)
    parser.add_argument("--image-size", type=int, default=640)
    options = parser.parse_args()
    images = images_of(options.clip, options.image_size, count=2)
    detector, boxes = biased_detector(options.scale, images, options.boxes)
    card = Card(
        scale=options.scale,
        classes=tuple(f"class_{place}" for place in range(NUM_CLASSES)),
        class_width=SCALES[options.scale].class_width,
        box_groups=1,
        form="fused",
        source=f"random, biased to {options.boxes} boxes a frame",
        licence="Apache-2.0",
    )
    save_weights(options.output, detector, card)
    print(f"{options.output}: {boxes:.1f} boxes a frame")


def images_of(clip: Path, image_size: int, *, count: int) -> torch.Tensor:
    """The first frames of a clip in our rectangle, as the network takes them."""
    with av.open(str(clip)) as container:
        pictures = [
            frame.to_ndarray(format="rgb24") for frame in islice(container.decode(video=0), count)
        ]
    source_hw = pictures[0].shape[:2]
    letterbox = Letterbox.fit(source_hw, rectangle(source_hw, image_size))
    images = np.stack([letterbox_image(picture, letterbox) for picture in pictures])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


@torch.inference_mode()
def biased_detector(
    scale: ScaleName, images: torch.Tensor, wanted: float
) -> tuple[Detector, float]:
    """A fused detector with random weights, and how many boxes it finds in an image."""
    detector = _random_detector(scale)
    _spread_scores(detector, images)
    logits = detector.logits(images)
    low, high = -40.0, 0.0
    while high - low > 0.01:  # more bias, more boxes
        middle = (low + high) / 2
        low, high = (low, middle) if _num_boxes(logits, middle) > wanted else (middle, high)
    for level in LEVELS:
        _bias(detector, level).add_(low)
    return detector, _num_boxes(detector.logits(images), 0.0)


def _random_detector(scale: ScaleName) -> Detector:
    """Convolutions that keep the variance of what passes, so that deep layers see the image."""
    torch.manual_seed(0)
    detector = fuse(Detector(SCALES[scale], NUM_CLASSES, box_groups=1).eval())
    for module in detector.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_in))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return detector


def _spread_scores(detector: Detector, images: torch.Tensor) -> None:
    """Give the class scores of each level the mean and the spread of a trained detector's."""
    for level, logits in zip(LEVELS, detector.logits(images), strict=True):
        out = detector.head.score[level].out
        factor = SPREAD / logits.score.std()
        out.weight.mul_(factor)
        _bias(detector, level).sub_(logits.score.mean() * factor)


def _num_boxes(logits: Logits, bias: float) -> float:
    """Boxes an image that survive with this much added to every class score."""
    p3, p4, p5 = (LevelLogits(level.box, level.score + bias) for level in logits)
    rows = decode((p3, p4, p5)).numpy()
    return sum(len(suppress(row, SETTINGS)) for row in rows) / len(rows)


def _bias(detector: Detector, level: str) -> torch.Tensor:
    bias = detector.head.score[level].out.bias
    assert bias is not None
    return bias


if __name__ == "__main__":
    main()
