# SPDX-License-Identifier: Apache-2.0
"""Small inputs for the tests of the model: random weights, files, boxes."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from model.blocks import ElanBlock
from model.card import Card
from model.detections import Detections
from model.head import BINS, LEVELS, BoxGroups
from model.importing import bins_name, official_names
from model.network import Detector
from model.parity import make_pictures
from model.quantisation import Quantisation
from model.released import DataSource, Figures, Measured, Released, Reliability
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


def make_calm_detector(scale: ScaleName = "T", num_classes: int = len(CLASSES)) -> Detector:
    """A detector that behaves as a trained one does: small errors inside stay small outside.

    Each normalisation divides by what its convolution gives for a few pictures, all channels
    together, so that nothing grows with depth and no channel is mostly rounding. What went through
    fewer convolutions counts for more, or int8 would leave nothing of the scores. Scores and boxes
    are neither all alike nor all at their limits, as those of `make_detector` are.
    """
    torch.manual_seed(0)
    detector = Detector(SCALES[scale], num_classes).eval()
    images = torch.from_numpy(make_pictures((4, 96, 96), seed=5)).permute(0, 3, 1, 2) / 255
    hooks = []
    for module in detector.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 1.0, 1.5)
            torch.nn.init.uniform_(module.bias, -0.2, 0.2)
            hooks.append(module.register_forward_pre_hook(_settle))
    for block in detector.modules():
        if isinstance(block, ElanBlock):
            block.merge.conv.weight.data[:, block.split.conv.out_channels :] *= 0.1
    with torch.no_grad():
        detector(images)
        for hook in hooks:
            hook.remove()
        for level, logits in zip(LEVELS, detector.logits(images), strict=True):
            score, box = detector.head.score[level].out, detector.head.box[level].out
            gain = 2 / logits.score.std()
            score.bias.copy_((score.bias - logits.score.mean()) * gain - 1.5)
            score.weight.mul_(gain)
            box.weight.div_(logits.box.std())
            box.bias.zero_()
    return detector


def _settle(norm: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
    norm.running_mean.zero_()
    norm.running_var.fill_(inputs[0].square().mean().item())


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
    from model.artefact import graph_digest  # needs OpenVINO, which a machine with a GPU may lack

    quantisation = Quantisation(
        graph_sha256=graph_digest(text, numbers),
        frames=4,
        image_size=96,
        nncf="none",
        openvino="none",
    )
    changed = {"form": "quantised", "dtype": "int8", "quantisation": quantisation} | changes
    return make_card(**changed)


def make_released(**changes: object) -> Released:
    """What a card says of a released model, invented."""
    figures = Figures(ap=0.4, ap50=0.6, ap75=0.5, ap_small=0.1, ap_medium=0.4, ap_large=-1)
    measured = Measured(
        split="test",
        images=9,
        protocol="square",
        image_size=96,
        overall=figures,
        classes=dict.fromkeys(CLASSES, figures),
        calibration=(Reliability(above=0.9, boxes=4, score=0.95, precision=0.75),),
    )
    released = Released(
        name="street-t",
        licence="Apache-2.0",
        data=(DataSource(name="a test", licence="CC0"),),
        command="sightline train data.yaml",
        min_score=0.33,
        weaknesses=("knows nothing",),
        measured=measured,
    )
    return released.model_copy(update=changes)


def make_shipped(folder: Path, name: str = "street-t", **changes: object) -> Path:
    """A released model with random weights, in float16."""
    card = make_card(dtype="float16", released=make_released(name=name, **changes))
    path = folder / f"{name}.safetensors"
    save_weights(path, fuse(make_calm_detector()), card)
    return path


def make_weights(folder: Path, name: str = "random.safetensors") -> Path:
    path = folder / name
    save_weights(path, fuse(make_calm_detector()), make_card())
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
