# SPDX-License-Identifier: Apache-2.0
"""From the configuration that runs to another one, without touching what stays as it is."""

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from model.config import Settings
from model.errors import ConfigError
from pipeline.models import ModelInUse
from pipeline.runner import Supervisor
from pipeline.serve.config import ServeConfig

_CHANGES = frozenset({"cameras", "model.weights"})
"""What may change while a service runs; all else needs a restart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What there is to do; names of cameras in the order of the settings."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    weights: Path | None = None
    """Other weights, if the model is another."""


def compare(running: ServeConfig, wanted: ServeConfig) -> Difference:
    """Say what must be done to get from one configuration to another.

    Raises:
        ConfigError: something differs that cannot change while it runs.
    """
    fixed = [path for path in _paths_that_differ(running, wanted) if path not in _CHANGES]
    if fixed:
        raise ConfigError(
            f"{', '.join(fixed)}: cannot change while the service runs; restart it for that. "
            "The configuration before stays in force"
        )
    if wanted.model.weights is None and running.model.weights is not None:
        raise ConfigError("model.weights: none given; the configuration before stays in force")
    old, new = running.cameras, wanted.cameras
    other = wanted.model.weights != running.model.weights
    return Difference(
        added=tuple(name for name in new if name not in old),
        removed=tuple(name for name in old if name not in new),
        changed=tuple(name for name in new if name in old and new[name] != old[name]),
        weights=wanted.model.weights if other else None,
    )


def apply(
    supervisor: Supervisor, difference: Difference, wanted: ServeConfig
) -> Future[ModelInUse] | None:
    """Do what there is to do; the future tells how the change of the model went, if there is one.

    Whatever can be refused is refused before anything is done.

    Raises:
        PipelineError: a camera cannot be read, or there is no room.
        ModelError: the weights cannot take over.
    """
    touched = (*difference.added, *difference.changed)
    sources = {name: source for name, source in wanted.sources().items() if name in touched}
    most = wanted.service.most_cameras
    if len(wanted.cameras) > most:
        raise ConfigError(
            f"cameras: {len(wanted.cameras)}, and there may be {most}; raise service.most_cameras, "
            "which needs a restart"
        )
    weights = difference.weights
    swap = supervisor.swap_model(weights) if weights is not None else None
    for name in difference.removed:
        supervisor.remove(name)
    for name in difference.changed:
        supervisor.replace(sources[name])
    for name in difference.added:
        supervisor.add(sources[name])
    return swap


def _paths_that_differ(old: Settings, new: Settings, above: str = "") -> Iterator[str]:
    for name in type(old).model_fields:
        before, after = getattr(old, name), getattr(new, name)
        if isinstance(before, Settings) and isinstance(after, Settings):
            yield from _paths_that_differ(before, after, f"{above}{name}.")
        elif before != after:
            yield f"{above}{name}"
