# SPDX-License-Identifier: Apache-2.0
"""Settings of a service, found to fit their model, cameras and rules; nothing is opened for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.config import Suppression, load_settings, read_tree
from model.engines import Engine
from model.engines.contract import Takes
from model.errors import ConfigError
from model.shipped import find_weights, has_default
from pipeline.config import OutputConfig, PipelineConfig
from pipeline.decoding.inputs import Source
from pipeline.engines import devices_here, takes_here
from pipeline.graph import Plan, check_camera, floor_for, video_graph
from pipeline.job import card_of, settled
from pipeline.logs import Logs
from pipeline.metrics import CounterTable
from pipeline.outputs import Outputs
from pipeline.rules.config import faults_of_classes
from pipeline.serve.config import ServeConfig
from pipeline.serve.hidden import secrets_of
from pipeline.stages.observe import Observer


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What follows from settings that are as they must be."""

    config: ServeConfig
    shared: PipelineConfig
    """What all cameras have in common."""
    classes: Sequence[str]
    """The model's names of its classes, which the service keeps through every change of model."""
    sources: tuple[Source, ...]
    floor: Suppression
    """What the detector keeps, of which a camera may want less."""
    takes: Takes
    """What its engine is given."""
    devices: tuple[int, ...]
    """The accelerators its engines run on."""

    def plan(
        self, build_engine: Callable[..., Engine], observe: Callable[[Source], Observer]
    ) -> Plan:
        """What the stages are made from."""
        return Plan(
            config=self.shared,
            classes=self.classes,
            class_ids=None,
            floor=self.floor,
            build_engine=build_engine,
            outputs=Outputs(OutputConfig()),
            takes=self.takes,
            devices=self.devices,
            observed=True,
            observe=observe,
            service=self.config.service,
            logs=Logs(secrets=tuple(secrets_of(self.config))),
        )


def is_service(path: Path) -> bool:
    """Whether a file holds settings of a service and not of a run: it names what only those have.

    Raises:
        ConfigError: it cannot be read.
    """
    only_theirs = ServeConfig.model_fields.keys() - PipelineConfig.model_fields.keys()
    return bool(read_tree(path).keys() & only_theirs)


def read_config(path: Path, overrides: Sequence[str] = ()) -> ServeConfig:
    """Read the settings of a service, with the weights they stand for.

    Raises:
        ConfigError: they are not as they must be.
    """
    config = load_settings(ServeConfig, path, overrides)
    if config.model.weights is None and not has_default():
        raise ConfigError(
            f"{path}: model.weights: none given; name a file, made by: sightline import CHECKPOINT "
            "--output FILE, or by sightline fetch"
        )
    return with_weights(config, find_weights(config.model.weights))


def with_weights(config: ServeConfig, weights: Path | None) -> ServeConfig:
    """The settings with other weights."""
    model = config.model.model_copy(update={"weights": weights})
    return config.model_copy(update={"model": model})


def check_settings(config: ServeConfig) -> Checked:
    """Check everything that can be without opening anything.

    Raises:
        ModelError: the weights cannot be read or run, or a class is not theirs.
        PipelineError: an address cannot be one of a camera.
    """
    shared = settled(config.pipeline)
    card = card_of(shared)
    classes = card.classes
    sources = tuple(config.sources().values())
    floor = floor_for(shared, [check_camera(source, shared, classes) for source in sources])
    check_rules(config, classes)
    takes = takes_here(shared, card)
    return Checked(
        config=config,
        shared=shared,
        classes=classes,
        sources=sources,
        floor=floor,
        takes=takes,
        devices=devices_here(shared, takes),
    )


def check_rules(config: ServeConfig, classes: Sequence[str]) -> None:
    """Check that the model knows the classes that rules are about.

    Raises:
        ConfigError: it does not.
    """
    for name, entry in config.cameras.items():
        if faults := faults_of_classes(entry.watched_for, classes):
            raise ConfigError(f"cameras.{name}.{faults[0]}")


def nobody(_: Source) -> Observer:
    """Stand for who is shown what runs, where nothing does."""
    raise AssertionError("nothing is shown, as nothing runs")


def describe_service(config: ServeConfig, build_engine: Callable[..., Engine]) -> str:
    """The graph that settings make, and their cameras, after checking all of them.

    Raises:
        ModelError: the weights, a class or a rule are not as they must be.
        PipelineError: an address cannot be one of a camera.
    """
    checked = check_settings(config)
    graph = video_graph(checked.plan(build_engine, nobody), CounterTable())
    cameras = [
        f"camera {source.name}: {source.label}{', with pictures' if source.pictured else ''}"
        for source in checked.sources
    ]
    return "\n".join([str(graph), *(cameras or ["no cameras; PUT /api/cameras/NAME adds some"])])
