# SPDX-License-Identifier: Apache-2.0
"""A training on disk: one safetensors file, whole or not at all, from which nothing is run.

Everything random follows from seed, epoch and step, so that the place in training stands for all
generators. What is not a tensor is JSON in the file's metadata.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import torch
from pydantic import Field, ValidationError
from safetensors.torch import save
from torch import Tensor, nn

from model.card import read_header
from model.config import Settings, describe_faults
from model.errors import WeightsError
from model.files import replacing
from model.weights import read_tensors
from training.recipe import Recipe
from training.sampling import Position
from training.state import Row, Sums, TrainState

NAME: Final = "checkpoint.safetensors"
KEY: Final = "sightline_training"
"""Entry of the file's metadata that holds what is not a tensor."""


class Origin(Settings):
    """What a training is of: taken up again, it has to be the same."""

    recipe: Recipe
    data_digest: str
    classes: tuple[str, ...]
    images_per_batch: int
    """Those of all processes."""
    steps_per_epoch: int


class Saved(Settings):
    """What a checkpoint knows beside its tensors."""

    origin: Origin
    epoch: Annotated[int, Field(ge=0)]
    step: Annotated[int, Field(ge=0)]
    updates: Annotated[int, Field(ge=0)]
    sums: Sums
    rows: tuple[Row, ...]
    format_version: int = 1


def save_checkpoint(path: Path, state: TrainState, origin: Origin) -> None:
    """Write a training down; a power failure leaves this checkpoint or the former one.

    Raises:
        OSError: it cannot be written; the former one is still there.
    """
    saved = Saved(
        origin=origin,
        epoch=state.position.epoch,
        step=state.position.step,
        updates=state.average.updates,
        sums=state.sums,
        rows=tuple(state.rows),
    )
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _tensors(state)}
    content = save(tensors, {KEY: saved.model_dump_json()})
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def read_checkpoint(path: Path) -> Saved:
    """Say where a training stands and what it is of."""
    text = read_header(path).get("__metadata__", {}).get(KEY)
    if text is None:
        raise WeightsError(f"{path}: not a checkpoint of a training")
    try:
        return Saved.model_validate_json(text)
    except ValidationError as invalid:
        faults = " ".join(describe_faults(invalid).split())
        raise WeightsError(f"{path}: not a checkpoint this version reads: {faults}") from None


def restore(path: Path, saved: Saved, state: TrainState) -> None:
    """Bring a training that has just begun to where a checkpoint stands."""
    tensors = read_tensors(path)
    _fill(path, "model", state.guided, tensors)
    _fill(path, "average", state.average.guided, tensors)
    names = _names(state)
    for key, tensor in tensors.items():
        part, _, rest = key.partition(".")
        if part == "optimizer":
            name, _, entry = rest.rpartition(".")
            parameter = names[name]
            state.optimizer.state[parameter][entry] = _like(parameter, tensor)
    state.position = Position(epoch=saved.epoch, step=saved.step)
    state.average.updates = saved.updates
    state.sums = saved.sums
    state.rows = list(saved.rows)


def _tensors(state: TrainState) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in state.guided.state_dict().items():
        yield f"model.{name}", tensor
    for name, tensor in state.average.guided.state_dict().items():
        yield f"average.{name}", tensor
    for name, parameter in _names(state).items():
        for entry, value in state.optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                yield f"optimizer.{name}.{entry}", value


def _names(state: TrainState) -> dict[str, nn.Parameter]:
    return dict(state.guided.named_parameters())


@torch.no_grad()
def _fill(path: Path, part: str, module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy values into a module's own tensors, whose memory format stays as it is."""
    for name, tensor in module.state_dict().items():
        value = tensors.get(f"{part}.{name}")
        if value is None or value.shape != tensor.shape:
            raise WeightsError(f"{path}: its {part} is of another detector: {name} does not fit")
        tensor.copy_(value)


def _like(parameter: nn.Parameter, tensor: Tensor) -> Tensor:
    """Return what an optimizer keeps of a parameter, laid out as the parameter is."""
    if tensor.shape != parameter.shape:
        return tensor
    return torch.empty_like(parameter, requires_grad=False).copy_(tensor)
