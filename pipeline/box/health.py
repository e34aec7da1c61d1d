# SPDX-License-Identifier: Apache-2.0
"""Whether a service does well: it answers, it is ready, and frames go on."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pipeline.metrics import SKIPPED
from pipeline.serve.access import HttpConfig

_ANSWER_S: Final = 5.0
_MOST_UNWELL: Final = 3
_MOST_BYTES: Final = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One look at a service."""

    fault: str = ""
    """Why it does not work; empty while it does."""
    missing: str = ""
    """What it waits for before it looks at frames; empty once it does."""
    num_frames: Mapping[str, int] = field(default_factory=dict)
    """Of each camera since it started, that were looked at or were not to be."""
    shapes: tuple[tuple[int, int, int], ...] = ()
    """Pictures in a batch, height and width of what its engines take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long a new version is waited for and watched."""

    watch_s: float = 60.0
    """How long it must do well once it is ready."""
    ready_s: float = 180.0
    """How long it may take until it is ready."""
    silent_s: float = 20.0
    """How long a camera may give no frame, if it gave some before the update."""
    poll_s: float = 0.5


class Unwell(Exception):  # noqa: N818 - it says what was seen
    """A service does not do well; the text says how."""


def look_at(http: HttpConfig | None) -> Seen:
    """Ask a service how it does; one that cannot be asked is taken to do well."""
    if http is None:
        return Seen()
    fault = _fault_of(http, "/healthz")
    if fault:
        return Seen(fault=fault, missing=fault)
    missing = _fault_of(http, "/readyz")
    try:
        status = json.loads(_get(http, "/api/status"))
        frames = {
            name: _frames_of(camera["counters"]) for name, camera in status["cameras"].items()
        }
        engines = [engine["input_shape"] for engine in status["model"]["engines"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
        return Seen(fault=f"/api/status: {fault!r}", missing=missing)
    shapes = tuple((int(batch), int(height), int(width)) for batch, height, width, *_ in engines)
    return Seen(missing=missing, num_frames=frames, shapes=shapes)


def cameras_with_frames(look: Callable[[], Seen], within_s: float, poll_s: float) -> frozenset[str]:
    """Cameras whose frames go on; looks until all have given some, `within_s` at most."""
    first = last = look()
    until_s = time.monotonic() + within_s
    growing = _grown(first, last)
    while growing != first.num_frames.keys() and time.monotonic() < until_s and not last.fault:
        time.sleep(poll_s)
        last = look()
        growing = _grown(first, last)
    return growing


def watch(
    look: Callable[[], Seen],
    failure: Callable[[], str],
    limits: Limits,
    cameras: frozenset[str],
) -> None:
    """Watch a service that was just started, for its set time.

    Args:
        look: Looks at it.
        failure: Says why it does not run.
        limits: How long.
        cameras: Those that gave frames before; each must go on. With none it need not get ready.

    Raises:
        Unwell: it ended, is not ready in time, does not answer, or a camera's frames stopped.
    """
    _wait_until_ready(look, failure, limits, with_frames=bool(cameras))
    began_s = time.monotonic()
    flow = _Flow(cameras, look(), began_s)
    unwell = 0
    while (now_s := time.monotonic()) < began_s + limits.watch_s:
        time.sleep(limits.poll_s)
        _check_runs(failure)
        seen = look()
        unwell = unwell + 1 if seen.fault else 0
        if unwell >= _MOST_UNWELL:
            raise Unwell(seen.fault)
        if not seen.fault:
            flow.note(seen, now_s)
        flow.check(now_s, limits.silent_s)
    flow.check_began(limits.watch_s)


class _Flow:
    """Frames of the cameras that gave some before."""

    def __init__(self, cameras: frozenset[str], seen: Seen, now_s: float) -> None:
        self._first = self._last = seen
        self._grew_s = dict.fromkeys(sorted(cameras), now_s)

    def note(self, seen: Seen, now_s: float) -> None:
        for camera in _grown(self._last, seen) & self._grew_s.keys():
            self._grew_s[camera] = now_s
        self._last = seen

    def check(self, now_s: float, silent_s: float) -> None:
        for camera, grew_s in self._grew_s.items():
            if now_s > grew_s + silent_s:
                raise Unwell(f"{camera} gave frames before, and none for {silent_s:g} s")

    def check_began(self, watched_s: float) -> None:
        for camera in self._grew_s.keys() - _grown(self._first, self._last):
            raise Unwell(f"{camera} gave frames before, and none in {watched_s:g} s")


def _grown(before: Seen, now: Seen) -> frozenset[str]:
    """Cameras that have more frames than before."""
    return frozenset(
        camera
        for camera, count in now.num_frames.items()
        if count > before.num_frames.get(camera, 0)
    )


def _frames_of(counters: Mapping[str, int]) -> int:
    return counters["tracked"] + sum(counters.get(name, 0) for name in SKIPPED)


def _wait_until_ready(
    look: Callable[[], Seen], failure: Callable[[], str], limits: Limits, *, with_frames: bool
) -> None:
    until_s = time.monotonic() + limits.ready_s
    while True:
        _check_runs(failure)
        seen = look()
        # Without a frame there is no engine, and a service is not ready; nor was the one before.
        lacking = seen.missing if with_frames else seen.fault
        if not lacking:
            return
        if time.monotonic() > until_s:
            raise Unwell(f"not ready after {limits.ready_s:g} s: {lacking}")
        time.sleep(limits.poll_s)


def _check_runs(failure: Callable[[], str]) -> None:
    if why := failure():
        raise Unwell(why)


def _fault_of(http: HttpConfig, path: str) -> str:
    """What is wrong with an answer; nothing if it is 200."""
    try:
        _get(http, path)
    except urllib.error.HTTPError as answer:
        return f"{path}: {answer.code} {_first_line(answer)}"
    except (OSError, ValueError) as fault:
        return f"{path}: {fault}"
    return ""


def _get(http: HttpConfig, path: str) -> Any:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(http.host, http.host)
    place = f"[{host}]" if ":" in host else host
    request = urllib.request.Request(f"http://{place}:{http.port}{path}")
    if http.token is not None:
        request.add_header("Authorization", f"Bearer {http.token.reveal()}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=_ANSWER_S) as answer:
        return answer.read(_MOST_BYTES)


def _first_line(answer: urllib.error.HTTPError) -> str:
    try:
        return answer.read(200).decode(errors="replace").partition("\n")[0]
    except OSError:
        return ""
