# SPDX-License-Identifier: Apache-2.0
"""A running service: everything it is made of, started and ended in order.

    settings -> supervisor -> observers (rules) -> teller -> receivers
                    ^                                          web server asks and tells

The supervisor runs in the thread that called `run`; the web server and reloads have their own and
change things through the supervisor's thread-safe methods alone. The settings file is the truth:
what was only told over HTTP lasts until the next reload or restart.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import Any, Final, get_args
from urllib.parse import unquote, urlsplit

import msgspec
from pydantic import BaseModel, ValidationError

from model.config import describe_faults, load_settings
from model.engines import build_engine
from model.errors import ConfigError, EngineError, ModelError
from pipeline.config import OutputConfig
from pipeline.decoding.inputs import Source
from pipeline.errors import PipelineError
from pipeline.events import EventKind
from pipeline.graph import Plan, check_camera, floor_for
from pipeline.job import card_of, settled
from pipeline.logs import Logs
from pipeline.metrics import CounterTable
from pipeline.models import ModelInUse
from pipeline.outputs import Outputs
from pipeline.rules.config import faults_of_classes
from pipeline.runner import Supervisor
from pipeline.secret import Secret
from pipeline.serve import metrics
from pipeline.serve.config import CameraEntry, ServeConfig, source_of
from pipeline.serve.incidents import Incidents
from pipeline.serve.rates import Rate, Rates
from pipeline.serve.reload import apply, compare
from pipeline.serve.watching import CameraWatch, MemoryFile, SnapshotWriter
from pipeline.serve.web import EventQuery, WebServer
from pipeline.streams import StreamState
from pipeline.telling.store import Query
from pipeline.telling.teller import Teller

logger = logging.getLogger(__name__)

_STUCK_S: Final = 10.0
"""A supervisor that has not come round for so long does not work."""
_LOST_AFTER_S: Final = 5.0
_OVERLOAD_AFTER_S: Final = 10.0
_OVERLOAD: Final = 0.05
_DISK_AFTER_S: Final = 2.0
_SWAP_S: Final = 120.0
_CLOSING_S: Final = 5.0


def read_config(path: Path, overrides: Sequence[str] = ()) -> ServeConfig:
    """Read the settings of a service.

    Raises:
        ConfigError: they are not as they must be.
    """
    return load_settings(ServeConfig, path, overrides)


def secrets_of(config: BaseModel) -> Iterator[str]:
    """Give every secret in settings, and the passwords inside addresses."""
    for value in dict(config).values():
        yield from _secrets_in(value)


class Service:
    """Many cameras for months."""

    def __init__(self, path: Path, overrides: Sequence[str] = ()) -> None:
        """Check everything and open what is kept; nothing is read from a camera yet.

        Raises:
            ModelError: settings or weights are not as they must be.
            PipelineError: a camera, an address to listen on or a file is not.
        """
        self._path, self._overrides = path, overrides
        self._config = config = read_config(path, overrides)
        shared = settled(config.pipeline)
        card = card_of(shared)
        self._classes = card.classes
        self._shared = shared
        sources = config.sources()
        wanted = [check_camera(source, shared, card.classes) for source in sources.values()]
        self._floor = floor_for(shared, wanted)
        self._check_rules(config)
        self._rates = Rates()
        self._changing = threading.Lock()
        self._beat_s = time.monotonic()
        self._began_s = time.time()
        self._teller = Teller(config.events, tuple(config.cameras))
        self._writer = SnapshotWriter(self._teller.snapshots)
        self._incidents = Incidents(self._teller.tell)
        self._watched: frozenset[str] = frozenset()
        plan = Plan(
            config=shared,
            classes=card.classes,
            class_ids=None,
            floor=self._floor,
            build_engine=build_engine,
            outputs=Outputs(OutputConfig()),
            observed="pictures" if config.pictures else "tracks",
            observe=self._observer,
            service=config.service,
            logs=Logs(secrets=tuple(secrets_of(config))),
        )
        counters = CounterTable(room=config.service.most_cameras)
        self._supervisor = Supervisor(plan, counters, tuple(sources.values()))
        self._web = WebServer(self, config.http) if config.http is not None else None
        if self._web is not None:
            logger.info("status at %s", self._web.address)

    def run(self) -> None:
        """Serve until it is stopped.

        Raises:
            PipelineError: the detector failed again and again.
        """
        try:
            self._supervisor.run(self._on_tick)
        finally:
            self._close()
        if self._supervisor.fault:
            raise PipelineError(self._supervisor.fault)

    def stop(self) -> None:
        """End in good order; twice, at once. May be called from a signal handler."""
        self._supervisor.stop()

    def reload_soon(self) -> None:
        """Read the settings again, in a thread of its own; may be called from a signal handler."""
        threading.Thread(target=self._reload_and_say, name="reload", daemon=True).start()

    def faults(self) -> list[str]:
        """Why the service does not work; empty while it does."""
        silent_s = time.monotonic() - self._beat_s
        found = [f"the supervisor has not come round for {silent_s:.0f} s"]
        return found if silent_s > _STUCK_S else []

    def missing(self) -> list[str]:
        """What is waited for before frames are looked at."""
        if self._supervisor.engines or not self._config.cameras:
            return self.faults()
        return [*self.faults(), "no engine yet: no camera has given a frame, or one is being built"]

    def status(self) -> Mapping[str, Any]:
        """Everything known, for people and pages."""
        supervisor, counted = self._supervisor, self._supervisor.counted()
        statistics = self._teller.statistics()
        streams = dict(supervisor.streams)
        return {
            "since": self._began_s,
            "model": {
                "weights": str(supervisor.model.config.weights),
                "number": supervisor.model.number,
                "engines": [msgspec.to_builtins(engine) for engine in supervisor.engines],
            },
            "cameras": {
                name: _camera_status(state, counted[name], self._rates.latest.get(name, Rate()))
                for name, state in streams.items()
                if name in counted
            },
            "events": msgspec.to_builtins(statistics),
            "snapshots_dropped": self._writer.num_dropped,
        }

    def metrics(self) -> bytes:
        """Everything countable."""
        num_open = self._incidents.num_open
        return metrics.render(self._supervisor, self._teller.statistics(), num_open)

    def events(self, query: EventQuery) -> list[Mapping[str, Any]]:
        """The latest events first."""
        if query.kind is not None and query.kind not in get_args(EventKind):
            raise ConfigError(f"kind: expected {', '.join(get_args(EventKind))}")
        asked = Query(
            camera=query.camera,
            kind=query.kind,  # type: ignore[arg-type]
            until_s=query.before_s,
            limit=query.limit,
        )
        try:
            page = self._teller.history.page(asked)
        except sqlite3.Error as failure:
            raise PipelineError(f"the events cannot be read now: {failure}") from None
        return [msgspec.to_builtins(event) for event in page.events]

    def put_camera(self, name: str, settings: Mapping[str, Any]) -> None:
        """Add or change a camera, until the next reload or restart."""
        with self._changing:
            cameras = dict(self._config.cameras) | {name: _entry(name, settings)}
            self._change(_with_cameras(self._config, cameras))

    def remove_camera(self, name: str) -> None:
        """Remove a camera, until the next reload or restart."""
        with self._changing:
            if name not in self._config.cameras:
                raise ConfigError(f"there is no camera {name}")
            cameras = {key: entry for key, entry in self._config.cameras.items() if key != name}
            self._change(_with_cameras(self._config, cameras))

    def reload(self) -> Mapping[str, Any]:
        """Read the settings file again and do what changed."""
        with self._changing:
            return self._change(read_config(self._path, self._overrides))

    def swap_model(self, weights: str) -> Mapping[str, Any]:
        """Have other weights take over between two frames; raises if the old ones go on."""
        with self._changing:
            model = self._config.model.model_copy(update={"weights": Path(weights)})
            return self._change(self._config.model_copy(update={"model": model}))

    def _change(self, wanted: ServeConfig) -> Mapping[str, Any]:
        """Do what is to do; the settings before stay in force if anything can be refused."""
        before = self._config
        difference = compare(before, wanted)
        self._check_rules(wanted)
        for name in (*difference.added, *difference.changed):
            self._check_camera(source_of(name, wanted.cameras[name]))
        self._config = wanted  # what begins anew reads its rules here
        try:
            swap = apply(self._supervisor, difference, wanted)
        except (ModelError, PipelineError):
            self._config = before
            raise
        self._teller.set_cameras(tuple(wanted.cameras))
        if swap is not None:
            self._await_swap(swap, before)
        return {
            "added": difference.added,
            "removed": difference.removed,
            "changed": difference.changed,
            "model": str(self._supervisor.model.config.weights),
        }

    def _await_swap(self, swap: "Future[ModelInUse]", before: ServeConfig) -> None:
        try:
            swap.result(_SWAP_S)
        except (EngineError, FutureTimeout) as failure:
            self._config = self._config.model_copy(update={"model": before.model})
            reason = str(failure) or f"not ready within {_SWAP_S:g} s"
            raise EngineError(f"{reason}; the model before runs on") from None

    def _check_camera(self, source: Source) -> None:
        wanted = check_camera(source, self._shared, self._classes)
        if wanted.floor < self._floor.min_score:
            raise ConfigError(
                f"{source.name}: boxes below a score of {self._floor.min_score:g} are not looked "
                "for by any camera yet; restart for that, or give a higher min_score"
            )

    def _check_rules(self, config: ServeConfig) -> None:
        for name, entry in config.cameras.items():
            if faults := faults_of_classes(entry.watched_for, self._classes):
                raise ConfigError(f"cameras.{name}.{faults[0]}")

    def _observer(self, source: Source) -> CameraWatch:
        """Make what watches a camera; called in the thread that shows it."""
        entry = self._config.cameras[source.name]
        return CameraWatch(
            entry.watched_for,
            camera=source.name,
            classes=self._classes,
            tell=self._teller.tell,
            writer=self._writer,
            memory=MemoryFile(self._config.state / f"rules-{source.name}.json"),
        )

    def _on_tick(self) -> None:
        self._beat_s = time.monotonic()
        if not self._rates.sample(self._supervisor.counted()):
            return
        now_s, streams = time.time(), dict(self._supervisor.streams)
        for name in self._watched - streams.keys():
            self._incidents.forget(name, now_s)
        self._watched = frozenset(streams)
        for name, state in streams.items():
            self._note_camera(name, state, now_s)
        fault = "" if self._teller.statistics().writable else "the database cannot be written"
        self._incidents.note("disk-full", "", fault, now_s=now_s, after_s=_DISK_AFTER_S)

    def _note_camera(self, name: str, state: StreamState, now_s: float) -> None:
        reason = "" if state.camera.state == "live" else state.camera.reason or "no frame yet"
        if state.failed:
            reason = state.reason
        self._incidents.note("camera-lost", name, reason, now_s=now_s, after_s=_LOST_AFTER_S)
        share = self._rates.latest.get(name, Rate()).lost_share
        reason = f"{share:.0%} of its frames are given up" if share > _OVERLOAD else ""
        self._incidents.note("overload", name, reason, now_s=now_s, after_s=_OVERLOAD_AFTER_S)

    def _reload_and_say(self) -> None:
        try:
            changed = self.reload()
        except (ModelError, PipelineError) as error:
            logger.error("not reloaded: %s", error)
        else:
            logger.info("reloaded: %s", changed)

    def _close(self) -> None:
        if self._web is not None:
            self._web.close()
        self._incidents.close(time.time())
        self._writer.close(_CLOSING_S)
        self._teller.close(_CLOSING_S)


def _camera_status(state: StreamState, counted: Mapping[Any, int], rate: Rate) -> dict[str, Any]:
    return {
        "source": state.source.label,
        "state": "failed" if state.failed else state.camera.state,
        "reason": state.reason if state.failed else state.camera.reason,
        "since": state.camera_since_s,
        "declared_fps": state.facts.frame_rate if state.facts is not None else None,
        "decoded_fps": round(rate.decoded, 2),
        "tracked_fps": round(rate.tracked, 2),
        "counters": dict(counted),
    }


def _entry(name: str, settings: Mapping[str, Any]) -> CameraEntry:
    try:
        return CameraEntry.model_validate(settings)
    except ValidationError as invalid:
        raise ConfigError(f"cameras.{name}: {describe_faults(invalid)}") from None


def _with_cameras(config: ServeConfig, cameras: Mapping[str, CameraEntry]) -> ServeConfig:
    """The settings with other cameras, whose names are checked again."""
    fields = {name: getattr(config, name) for name in ServeConfig.model_fields}
    try:
        return ServeConfig.model_validate(fields | {"cameras": dict(cameras)})
    except ValidationError as invalid:
        raise ConfigError(describe_faults(invalid)) from None


def _secrets_in(value: object) -> Iterator[str]:
    match value:
        case Secret():
            yield from _parts(value.reveal())
        case BaseModel():
            yield from secrets_of(value)
        case dict():
            for each in value.values():
                yield from _secrets_in(each)
        case tuple() | list():
            for each in value:
                yield from _secrets_in(each)


def _parts(secret: str) -> Iterator[str]:
    """A secret as it is; of an address only its password, since the rest may be shown."""
    if "://" not in secret:
        if not secret.startswith("replay:") and not Path(secret).exists():
            yield secret
        return
    try:
        password = urlsplit(secret).password
    except ValueError:
        yield secret
        return
    if password:
        yield password
        yield unquote(password)
