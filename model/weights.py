# SPDX-License-Identifier: Apache-2.0
"""Weights on disk: safetensors under our own names, with a card that says what they are.

Torch is imported by the functions that need it: reading a card needs none, so that an engine
built before starts without it.
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from model.card import CARD_KEY, Card, read_card, read_header
from model.errors import WeightsError, unreadable
from model.files import write_whole
from model.scales import SCALES

if TYPE_CHECKING:
    import torch

    import model.network

__all__ = [
    "Card",
    "assign",
    "blank",
    "fill",
    "load_detector",
    "read_card",
    "read_tensors",
    "save_weights",
    "weights_digest",
]


def weights_digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as failure:
        raise unreadable(path, failure) from None


def save_weights(path: Path, detector: "model.network.Detector", card: Card) -> None:
    """Write weights and card; the file appears whole or not at all.

    Raises:
        WeightsError: it cannot be written, or float16, where the card asks for it, is too small.
    """
    from safetensors.torch import save

    tensors = {name: tensor.contiguous() for name, tensor in detector.state_dict().items()}
    if card.dtype == "float16":
        tensors = _halved(path, tensors)
    content = save(tensors, metadata={CARD_KEY: card.model_dump_json()})
    write_whole(path, content, "these weights")


def load_detector(path: Path) -> tuple["model.network.Detector", Card]:
    """Build the detector a file describes, fused and ready to run, with the file's weights."""
    card = read_card(path)
    if card.form in ("quantised", "built"):
        raise WeightsError(
            f"{path}: a {card.form} artefact, which holds no weights that torch could run; "
            "give the file it was exported from"
        )
    if card.form == "training":
        raise WeightsError(
            f"{path}: a detector in training, with its auxiliary branch; "
            "give the file that was made from it to be run"
        )
    return fill(blank(card), read_tensors(path), path), card


def blank(card: Card) -> "model.network.Detector":
    """Build the detector that a card describes, its tensors without values."""
    import torch

    from model.network import Detector
    from model.reparam import fuse

    with torch.device("meta"):
        detector = Detector(
            SCALES[card.scale],
            len(card.classes),
            class_width=card.class_width,
            box_groups=card.box_groups,
        )
    return fuse(detector) if card.form == "fused" else detector


def fill(
    detector: "model.network.Detector", tensors: dict[str, "torch.Tensor"], path: Path
) -> "model.network.Detector":
    """Give a blank detector its tensors, every one of them, and fuse it."""
    from model.reparam import fuse

    assign(detector, tensors, path)
    return fuse(detector)


def assign(module: "torch.nn.Module", tensors: dict[str, "torch.Tensor"], path: Path) -> None:
    """Give a module its tensors, every one of them, or say how they differ."""
    wanted = {name: _kind(tensor) for name, tensor in module.state_dict().items()}
    found = {name: _kind(tensor) for name, tensor in tensors.items()}
    faults = [f"{name} is missing" for name in wanted if name not in found]
    faults += [f"{name} has no place" for name in found if name not in wanted]
    faults += [
        f"{name} is {found[name]}, expected {kind}"
        for name, kind in wanted.items()
        if found.get(name, kind) != kind
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise WeightsError(f"{path}: wrong tensors: {'; '.join(faults[:3])}{more}")
    module.load_state_dict(tensors, assign=True)


def read_tensors(path: Path) -> dict[str, "torch.Tensor"]:
    """Return the tensors of a safetensors file by name, numbers with a point in float32."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    read_header(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as fault:
        raise WeightsError(f"{path}: the tensors cannot be read: {fault}") from None
    return {
        name: tensor.to(torch.float32) if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }


def _halved(path: Path, tensors: dict[str, "torch.Tensor"]) -> dict[str, "torch.Tensor"]:
    halved = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
    lost = [name for name, tensor in halved.items() if not tensor.isfinite().all()]
    if lost:
        raise WeightsError(f"{path}: not written: float16 cannot hold the numbers of {lost[0]}")
    return halved


def _kind(tensor: "torch.Tensor") -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
