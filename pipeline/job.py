# SPDX-License-Identifier: Apache-2.0
"""A run from settings to summary: everything is checked before a stage starts."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from model.card import Card, read_card
from model.engines import build_engine
from model.engines.build import check_runs
from model.files import replacing
from model.shipped import has_default, with_min_score, with_weights
from pipeline.config import PipelineConfig
from pipeline.decoding.inputs import find_sources
from pipeline.engines import devices_here, takes_here
from pipeline.errors import SourceUnreadable
from pipeline.graph import (
    Plan,
    check_camera,
    classes_for,
    engine_builder,
    floor_for,
    tracker_floor,
    video_graph,
)
from pipeline.messages import Tracked
from pipeline.metrics import CounterTable
from pipeline.outputs import Outputs
from pipeline.runner import Supervisor
from pipeline.stages.infer import BuildEngine
from pipeline.streams import StreamState
from pipeline.tracking.tracks import Tracks
from pipeline.tracking.wanted import class_ids_of


class Job:
    """A checked run, ready to start."""

    def __init__(
        self,
        config: PipelineConfig,
        named: Sequence[str],
        *,
        take: Callable[[Tracked, Tracks], None] | None = None,
    ) -> None:
        """Check everything that can be checked before a frame is read.

        Args:
            config: The settings.
            named: Files, globs, folders and addresses.
            take: Is given every frame's tracks instead of the files in `config.output`.

        Raises:
            PipelineError: a source or an output is not as it must be.
            ModelError: the weights or the settings are not.
        """
        if not named:
            raise SourceUnreadable("no source named; give a file, a folder or an rtsp:// address")
        self.config = config = settled(config)
        self.card = card_of(config)
        plan = _plan(config, self.card)
        self.sources = find_sources(named)
        wanted = [check_camera(source, config, self.card.classes) for source in self.sources]
        self.outputs = plan.outputs
        self.counters = CounterTable(room=len(self.sources))
        if take is None:
            self.outputs.prepare(self.sources)
        self._writes_files = take is None
        plan = replace(
            plan,
            class_ids=classes_for(plan.class_ids, wanted),
            floor=floor_for(config, wanted),
            take=take,
        )
        self.supervisor = Supervisor(plan, self.counters, self.sources)
        self._started_s = time.monotonic()
        self.elapsed_s = 0.0
        self.fault = ""
        """What went wrong with the run as a whole."""

    def run(self, on_tick: Callable[[], None] = lambda: None) -> None:
        """Run to the end and write the summary; what went wrong stands in the streams' states."""
        self._started_s = time.monotonic()
        try:
            self.supervisor.run(on_tick)
        finally:
            self.elapsed_s = time.monotonic() - self._started_s
        if self._writes_files:
            self._write_summary()

    def stop(self) -> None:
        """End early, keeping what was read; a second call ends at once."""
        self.supervisor.stop()

    @property
    def streams(self) -> Sequence[StreamState]:
        """The streams in the order they were named."""
        return tuple(self.supervisor.streams.values())

    @property
    def complete(self) -> bool:
        """Whether every stream gave all it declares and every output is whole."""
        return not self.fault and all(state.complete for state in self.streams)

    def summary(self) -> dict[str, Any]:
        """What was done, as `summary.json` holds it."""
        engines, replaced = self.supervisor.engines, self.supervisor.replaced
        return {
            "sightline": _version(),
            "complete": self.complete,
            "elapsed_s": round(self.elapsed_s, 3),
            "model": {
                "weights": str(self.config.model.weights),
                "scale": self.card.scale,
                "engine": engines[0].name if engines else None,
                "precision": engines[0].precision if engines else None,
                "input_shapes": [list(engine.input_shape) for engine in engines],
                "build_s": round(sum(engine.build_s for engine in engines), 3),
            },
            "devices": [
                {"device": each.device, "fault": each.fault or None}
                for each in self.supervisor.devices()
            ],
            "settings": self.config.model_dump(mode="json"),
            "streams": [self._stream_summary(state) for state in self.streams],
            "replaced": [death.whose for death in replaced],
            "stages": self._stage_summary(),
        }

    def _stream_summary(self, state: StreamState) -> dict[str, Any]:
        counters = state.counters
        elapsed_s = state.elapsed_s
        return {
            "name": state.source.name,
            "source": state.source.label,
            "complete": state.complete,
            "reason": state.reason or None,
            "decoder": state.decoder.path,
            "decoder_reason": state.decoder.reason or None,
            "device": self.supervisor.device_of(state),
            "encoder": state.encoder.name if state.encoder else None,
            "encoder_reason": (state.encoder and state.encoder.reason) or None,
            "declared_frames": state.facts.num_frames if state.facts else None,
            **counters.as_dict(),
            "dropped": counters.num_dropped,
            "elapsed_s": round(elapsed_s, 3),
            "frames_per_s": round(counters["decoded"] / elapsed_s, 2) if elapsed_s else 0.0,
            "outputs": state.outputs,
        }

    def _stage_summary(self) -> dict[str, dict[str, float]]:
        return {
            worker: {
                "messages": usage["messages"],
                "work_s": _seconds(
                    usage["running_ns"]
                    - usage["waiting_for_input_ns"]
                    - usage["waiting_for_credit_ns"]
                ),
                "waiting_for_input_s": _seconds(usage["waiting_for_input_ns"]),
                "waiting_for_credit_s": _seconds(usage["waiting_for_credit_ns"]),
                "thread_cpu_s": _seconds(usage["cpu_ns"]),
            }
            for worker, usage in self.supervisor.usage.items()
        }

    def _write_summary(self) -> None:
        path = self.outputs.summary
        try:
            with replacing(path) as temporary:
                temporary.write_text(json.dumps(self.summary(), indent=2) + "\n")
        except OSError as error:
            self.fault = f"{path}: cannot be written ({(error.strerror or str(error)).lower()})"


def describe_graph(config: PipelineConfig) -> str:
    """The graph that these settings make, after checking the model and the classes.

    Raises:
        ModelError: the weights or the classes are not as they must be.
    """
    if config.model.weights or has_default():
        config = settled(config)
        plan = _plan(config, card_of(config))
    else:
        plan = Plan(
            config=config,
            classes=(),
            class_ids=None,
            floor=tracker_floor(config),
            build_engine=build_engine,
            outputs=Outputs(config.output),
        )
    return str(video_graph(plan, CounterTable()))


def builder_of(config: PipelineConfig) -> BuildEngine:
    """What builds the engines of a run with these settled settings.

    Raises:
        ModelError: the weights or the settings are not as they must be.
    """
    plan = _plan(config, card_of(config))
    return engine_builder(plan, plan.devices[0])


def _plan(config: PipelineConfig, card: Card) -> Plan:
    """What settled settings decide, whatever the streams want."""
    takes = takes_here(config, card)
    return Plan(
        config=config,
        classes=card.classes,
        class_ids=class_ids_of(config.classes, card.classes),
        floor=tracker_floor(config),
        build_engine=build_engine,
        outputs=Outputs(config.output),
        takes=takes,
        devices=devices_here(config, takes),
    )


def settled(config: PipelineConfig) -> PipelineConfig:
    """Put in what follows from the weights where nobody set it: `model/shipped.py` says what.

    Raises:
        ModelError: there are no weights, or their card cannot be read.
    """
    model = with_weights(config.model)
    assert model.weights is not None
    suppression = with_min_score(config.suppression, read_card(model.weights))
    return config.model_copy(update={"model": model, "suppression": suppression})


def card_of(config: PipelineConfig) -> Card:
    """Return the card of settled settings' weights, which can run as these ask."""
    assert config.model.weights is not None
    card = read_card(config.model.weights)
    check_runs(config.model, card)
    return card


def _seconds(nanoseconds: int) -> float:
    return round(nanoseconds / 1e9, 4)


def _version() -> str:
    try:
        return version("sightline")
    except PackageNotFoundError:
        return "unknown"
