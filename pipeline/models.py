# SPDX-License-Identifier: Apache-2.0
"""Which model runs, and whether another may take its place.

The classes of the first model are the service's own: rules, drawings and outputs know their
numbers. A model that comes later may number them otherwise; its boxes are given the service's
numbers, and those of classes the service does not know are left out.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.card import Card, read_card
from model.config import ModelConfig
from model.engines.build import check_runs
from model.errors import ConfigError

_SHOWN = 6
UNKNOWN = -1
"""In the place of a class number, where the service does not know the class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInUse:
    """A model and what its class numbers mean here."""

    number: int = 0
    """0 for the first, one more for each that was tried."""
    config: ModelConfig
    class_map: tuple[int, ...] | None = None
    """The service's number of each of its classes, or `UNKNOWN`; None where they are the same."""


def successor(
    config: ModelConfig, weights: Path, classes: Sequence[str], asked: Collection[str]
) -> ModelInUse:
    """What another weights file would be in the place of the model that runs.

    Args:
        config: How the model that runs is run.
        weights: The other file.
        classes: The service's classes.
        asked: Those somebody looks for.

    Raises:
        ModelError: it cannot be read or run, or lacks a class that is asked for.
    """
    card = read_card(weights)
    config = config.model_copy(update={"weights": weights})
    check_runs(config, card)
    if lacking := [name for name in classes if name in asked and name not in card.classes]:
        shown = ", ".join(lacking[:_SHOWN]) + (", ..." if len(lacking) > _SHOWN else "")
        raise ConfigError(
            f"{weights}: lacks classes that are looked for: {shown}; name those you need in "
            "classes, or restart with this model"
        )
    return ModelInUse(config=config, class_map=_class_map(card, classes))


def in_model(
    class_ids: Sequence[int] | None, class_map: Sequence[int] | None
) -> Sequence[int] | None:
    """The classes to look for, as a model numbers them; None for all."""
    if class_map is None:
        return class_ids
    known = enumerate(class_map)
    return [n for n, ours in known if ours >= 0 and (class_ids is None or ours in class_ids)]


def _class_map(card: Card, classes: Sequence[str]) -> tuple[int, ...] | None:
    numbers = {name: number for number, name in enumerate(classes)}
    mapped = tuple(numbers.get(name, UNKNOWN) for name in card.classes)
    return None if mapped == tuple(range(len(classes))) else mapped
