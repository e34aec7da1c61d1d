"""Our weights under the names that ultralytics gives fused tensors: both sides run the same."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from model.head import BINS
from model.importing import bins_name, official_names
from model.weights import load_detector


def save_official(weights: Path, output: Path) -> None:
    """Write a Sightline weights file the way `ultralytics_export.py` reads it."""
    detector, card = load_detector(weights)
    if card.box_groups != 1:
        raise SystemExit(f"{weights}: ultralytics knows no box branch in {card.box_groups} groups")
    names = official_names(detector)
    tensors = {names[ours]: tensor for ours, tensor in detector.state_dict().items()}
    tensors[bins_name(detector.scale)] = torch.arange(BINS, dtype=torch.float32).reshape(
        1, BINS, 1, 1
    )
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        output,
        {"scale": card.scale, "names": json.dumps(card.classes)},
    )
