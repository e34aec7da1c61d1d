# SPDX-License-Identifier: Apache-2.0
"""Small inputs for the tests of the model: random weights, files, boxes."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from model.artefact import graph_digest
from model.card import Card
from model.detections import Detections
from model.head import BINS, LEVELS, BoxGroups
from model.importing import bins_name, official_names
from model.network import Detector
from model.quantisation import Quantisation
from model.reparam import fuse
from model.scales import SCALES, ScaleName
from model.weights import save_weights

CLASSES = ("person", "bicycle", "car")


def make_detector(
    scale: ScaleName = "T", num_classes: int = len(CLASSES), *, box_groups: BoxGroups = 4
) -> Detector:
    """A detector with random weights and normalisations, whose scores are spread out."""
    torch.manual_seed(0)
    detector = Detector(SCALES[scale], num_classes, box_groups=box_groups).eval()
    for module in detector.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.8, 1.6)
            torch.nn.init.uniform_(module.bias, -0.2, 0.2)
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.05, 0.15)
    for level in LEVELS:
        branch = detector.head.score[level]
        torch.nn.init.normal_(branch.out.weight, std=2.0)
        torch.nn.init.constant_(branch.out.bias, -1.0)
    return detector


def make_card(**changes: object) -> Card:
    card = Card(
        scale="T",
        classes=CLASSES,
        class_width=80,
        box_groups=4,
        form="fused",
        source="made by a test",
        licence="Apache-2.0",
    )
    return card.model_copy(update=changes)


def make_quantised_card(text: bytes, numbers: bytes, **changes: object) -> Card:
    quantisation = Quantisation(
        graph_sha256=graph_digest(text, numbers),
        frames=4,
        image_size=96,
        nncf="none",
        openvino="none",
    )
    changed = {"form": "quantised", "dtype": "int8", "quantisation": quantisation} | changes
    return make_card(**changed)


def make_weights(folder: Path, name: str = "random.safetensors") -> Path:
    path = folder / name
    save_weights(path, fuse(make_detector()), make_card())
    return path


def published_tensors(detector: Detector) -> dict[str, torch.Tensor]:
    """The tensors of a detector under their official names, with the published constant."""
    names = official_names(detector)
    tensors = {names[ours]: tensor for ours, tensor in detector.state_dict().items()}
    tensors[bins_name(detector.scale)] = torch.arange(BINS, dtype=torch.float32).reshape(
        1, BINS, 1, 1
    )
    return tensors


def save_published(
    path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None
) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)
    return path


def make_detections(count: int) -> Detections:
    place = np.arange(count, dtype=np.float32)
    return Detections(
        xyxy=np.stack((place, place, place + 1, place + 2), axis=1),
        score=1 - place / 100,
        class_id=np.arange(count, dtype=np.int64) % 3,
    )


def make_image(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
