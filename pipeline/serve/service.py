# SPDX-License-Identifier: Apache-2.0
"""A running service: everything it is made of, started and ended in order.

    settings -> supervisor -> observers (rules) -> teller -> receivers
                    ^                                          web server asks and tells

The supervisor runs in the thread that called `run`; the web server and reloads have their own and
change things through the supervisor's thread-safe methods alone, one change at a time. The settings
file is the truth: what was only told over HTTP lasts until the next reload or restart.

Begun in an order in which nothing has to be undone that others have seen: settings and weights are
checked, the address is taken, the database is opened, then processes start and HTTP is answered.
Ended from the other side: HTTP first, so that nothing is promised any more, then the cameras'
events, and the database last.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
from pydantic import ValidationError

from model.config import describe_faults
from model.engines import build_engine
from model.errors import ConfigError, EngineError, ModelError
from model.shipped import find_weights
from pipeline.decoding.inputs import Source
from pipeline.errors import PipelineError, ServiceFailed
from pipeline.graph import check_camera
from pipeline.metrics import CounterTable
from pipeline.models import ModelInUse
from pipeline.rules.config import RulesConfig
from pipeline.runner import Supervisor
from pipeline.serve import metrics
from pipeline.serve.checked import check_rules, check_settings, read_config, with_weights
from pipeline.serve.config import CameraEntry, ServeConfig, source_of
from pipeline.serve.health import report_of
from pipeline.serve.incidents import Incidents
from pipeline.serve.notify import Notifier
from pipeline.serve.rates import Rate, Rates
from pipeline.serve.reload import apply, compare
from pipeline.serve.status import describe, summarize
from pipeline.serve.watching import CameraWatch, Keeping, MemoryFile, Writer
from pipeline.serve.web import WebServer
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
_TURN_S: Final = 5.0
_CLOSING_S: Final = 5.0
_NO_RULES: Final = RulesConfig()


class Service:
    """Many cameras for months."""

    def __init__(
        self, path: Path, overrides: Sequence[str] = (), manager: Notifier | None = None
    ) -> None:
        """Check everything and open what is kept; nothing is read from a camera yet.

        Args:
            path: Settings.
            overrides: Settings as `a.b=value`.
            manager: Who is told how the service is, if anybody watches over it.

        Raises:
            ModelError: settings or weights are not as they must be.
            PipelineError: a camera, an address to listen on or a file is not.
        """
        self._path, self._overrides = path, overrides
        self._manager = manager or Notifier()
        checked = check_settings(read_config(path, overrides))
        self._config = config = checked.config
        self._first_weights = config.model.weights
        self._shared, self._classes, self._floor = checked.shared, checked.classes, checked.floor
        self._rates = Rates()
        self._memories: dict[str, MemoryFile] = {}
        self._changing = threading.Lock()
        self._reload: threading.Thread | None = None
        self._reload_asked = self._ending = False
        self._beat_s = time.monotonic()
        self._began_s = time.time()
        self._watched: frozenset[str] = frozenset()
        with ExitStack() as undo:
            self._web = WebServer(self, config.http) if config.http is not None else None
            if self._web is not None:
                undo.callback(self._web.close)
            self._teller = Teller(config.events, tuple(config.cameras))
            undo.callback(self._teller.close)
            self._supervisor = Supervisor(
                checked.plan(build_engine, self._observer),
                CounterTable(room=config.service.most_cameras),
                checked.sources,
            )
            undo.pop_all()
        writer = Writer()
        self._keeping = Keeping(
            tell=self._teller.tell, snapshots=self._teller.snapshots, writer=writer
        )
        self._incidents = Incidents(self._teller.tell)
        self._teller.report_with(lambda: report_of(self.status()))

    @property
    def address(self) -> str:
        """Where HTTP is answered; empty for nowhere."""
        return self._web.address if self._web is not None else ""

    def run(self) -> None:
        """Serve until it is stopped.

        Raises:
            ServiceFailed: the detector failed again and again.
        """
        if self._web is not None:
            self._web.start()
            logger.info("status at %s", self.address)
        try:
            self._supervisor.run(self._on_tick)
        finally:
            self._close()
        if self._supervisor.fault:
            self._manager.status(self._supervisor.fault)
            raise ServiceFailed(self._supervisor.fault)

    def stop(self) -> None:
        """End in good order; twice, at once. May be called from a signal handler."""
        self._ending = True
        self._manager.stopping()
        self._supervisor.stop()

    def reload_soon(self) -> None:
        """Read the settings again when there is time; may be called from a signal handler.

        Asked again meanwhile, it is done once more, however often.
        """
        self._reload_asked = True

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
        known = describe(self._supervisor, self._teller.statistics(), self._rates.latest)
        dropped = self._keeping.writer.num_dropped
        return {"since": self._began_s, **known, "files_dropped": dropped}

    def metrics(self) -> bytes:
        """Everything countable."""
        num_open = self._incidents.num_open
        return metrics.render(self._supervisor, self._teller.statistics(), num_open)

    def events(self, query: Query) -> list[Mapping[str, Any]]:
        """The latest events first."""
        try:
            page = self._teller.history.page(query)
        except sqlite3.Error as failure:
            raise PipelineError(f"the events cannot be read now: {failure}") from None
        return [msgspec.to_builtins(event) for event in page.events]

    def put_camera(self, name: str, settings: Mapping[str, Any]) -> None:
        """Add or change a camera, until the next reload or restart."""
        with self._turn(_TURN_S):
            cameras = dict(self._config.cameras) | {name: _entry(name, settings)}
            self._change(_with_cameras(self._config, cameras))

    def remove_camera(self, name: str) -> None:
        """Remove a camera, until the next reload or restart."""
        with self._turn(_TURN_S):
            if name not in self._config.cameras:
                raise ConfigError(f"there is no camera {name}")
            cameras = {key: entry for key, entry in self._config.cameras.items() if key != name}
            self._change(_with_cameras(self._config, cameras))

    def reload(self) -> Mapping[str, Any]:
        """Read the settings file again and do what changed."""
        with self._turn(_TURN_S):
            return self._read_again()

    def swap_model(self, weights: str) -> Mapping[str, Any]:
        """Have other weights take over between two frames; raises if the old ones go on."""
        with self._turn(_TURN_S):
            return self._change(with_weights(self._config, find_weights(Path(weights))))

    @contextmanager
    def _turn(self, within_s: float) -> Iterator[None]:
        """Change something while nobody else does; who waits too long is told to come again."""
        if not self._changing.acquire(timeout=within_s):
            raise PipelineError("another change is under way; ask again when it is done")
        try:
            if self._ending:
                raise PipelineError("the service is ending; nothing is changed any more")
            yield
        finally:
            self._changing.release()

    def _read_again(self) -> Mapping[str, Any]:
        with self._manager.reloading():
            return self._change(read_config(self._path, self._overrides))

    def _in_force(self) -> ServeConfig:
        """The settings with the model that runs, also where it took longer than was waited for."""
        model = self._supervisor.model
        return with_weights(
            self._config, model.config.weights if model.number else self._first_weights
        )

    def _change(self, wanted: ServeConfig) -> Mapping[str, Any]:
        """Do what is to do; the settings before stay in force if anything can be refused."""
        before = self._in_force()
        difference = compare(before, wanted)
        check_rules(wanted, self._classes)
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
            self._await_swap(swap)
        return {
            "added": difference.added,
            "removed": difference.removed,
            "changed": difference.changed,
            "model": str(self._supervisor.model.config.weights),
        }

    def _await_swap(self, swap: "Future[ModelInUse]") -> None:
        try:
            swap.result(_SWAP_S)
        except FutureTimeout:
            raise EngineError(
                f"not ready within {_SWAP_S:g} s; it is still tried, /api/status says what runs"
            ) from None
        except EngineError as failure:
            raise EngineError(f"{failure}; the model before runs on") from None
        finally:
            self._config = self._in_force()

    def _check_camera(self, source: Source) -> None:
        wanted = check_camera(source, self._shared, self._classes)
        if wanted.floor < self._floor.min_score:
            raise ConfigError(
                f"{source.name}: boxes below a score of {self._floor.min_score:g} are not looked "
                "for by any camera yet; restart for that, or give a higher min_score"
            )

    def _observer(self, source: Source) -> CameraWatch:
        """Make what watches a camera; called in the thread that shows it."""
        name = source.name
        path = self._config.state / f"rules-{name}.json"
        return CameraWatch(
            partial(self._rules_of, source),
            camera=name,
            classes=self._classes,
            keeping=self._keeping,
            memory=self._memories.setdefault(name, MemoryFile(path)),
        )

    def _rules_of(self, source: Source) -> RulesConfig:
        """The rules of a camera as they are now.

        None for one that is being removed, and for one that has no pictures yet, until it was begun
        anew with those that its first rule wants.
        """
        if self._config.pictures and not source.pictured:
            return _NO_RULES
        return self._config.cameras.get(source.name, _NO_RULES)

    def _on_tick(self) -> None:
        self._beat_s = time.monotonic()
        self._manager.serving()
        self._follow_reloads()
        if not self._rates.sample(self._supervisor.counted):
            return
        streams = dict(self._supervisor.streams)
        self._manager.status(summarize(streams.values(), self._rates.latest.values()))
        for name in self._watched - streams.keys():
            self._incidents.forget(name, time.time())
        self._watched = frozenset(streams)
        note = partial(self._incidents.note, now_s=time.monotonic(), at_s=time.time())
        for name, state in streams.items():
            self._note_camera(name, state, note)
        fault = "" if self._teller.writable else "the database cannot be written"
        note("disk-full", "", fault, after_s=_DISK_AFTER_S)

    def _note_camera(self, name: str, state: StreamState, note: Callable[..., None]) -> None:
        reason = "" if state.camera.state == "live" else state.camera.reason or "no frame yet"
        if state.failed:
            reason = state.reason
        note("camera-lost", name, reason, after_s=_LOST_AFTER_S)
        # While the first engine is built nobody is to blame, and nothing can be done about it.
        ready = bool(self._supervisor.engines)
        share = self._rates.latest.get(name, Rate()).lost_share if ready else 0.0
        reason = f"{share:.0%} of its frames are given up" if share > _OVERLOAD else ""
        note("overload", name, reason, after_s=_OVERLOAD_AFTER_S)

    def _follow_reloads(self) -> None:
        """Begin a reload that was asked for; one that comes meanwhile waits for its end."""
        if self._reload_asked and (self._reload is None or not self._reload.is_alive()):
            self._reload_asked = False
            self._reload = threading.Thread(target=self._reload_and_say, name="reload", daemon=True)
            self._reload.start()

    def _reload_and_say(self) -> None:
        try:
            with self._turn(2 * _SWAP_S):
                changed = self._read_again()
        except (ModelError, PipelineError) as error:
            logger.error("not reloaded: %s", error)
        else:
            logger.info("reloaded: %s", changed)

    def _close(self) -> None:
        self._ending = True
        if self._web is not None:
            self._web.close()
        self._incidents.close(time.time())
        self._keeping.writer.close(_CLOSING_S)
        self._teller.close(_CLOSING_S)


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
