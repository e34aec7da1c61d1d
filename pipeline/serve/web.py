# SPDX-License-Identifier: Apache-2.0
"""What a running service answers over HTTP: how it does, and what it is told to change.

    GET    /healthz             200 while the service works, else 503
    GET    /readyz              200 once frames are looked at, else 503 and what is missing
    GET    /metrics             for Prometheus
    GET    /api/status          everything known about cameras, engine and receivers, as JSON
    GET    /api/events          what happened: ?camera= &kind= &before= &limit=
    PUT    /api/cameras/NAME    add or change a camera; the body is its settings
    DELETE /api/cameras/NAME    remove it
    POST   /api/reload          read the settings file again
    POST   /api/model           {"weights": PATH}: change the detector without a pause

Errors are `{"error": ONE LINE}`. What the answers are made from is a `Service`; nothing here knows
how it works.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, Protocol, get_args

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from pipeline.events import EventKind
from pipeline.serve.access import HttpConfig
from pipeline.serve.answering import EXPOSITION, HttpServer, asked, guarded, state
from pipeline.telling.store import Query

_MOST_BYTES: Final = 64 << 10
_MOST_EVENTS: Final = 1000


class Service(Protocol):
    """What is asked and told; every method may be called from any thread."""

    def faults(self) -> list[str]:
        """Why the service does not work; empty while it does. Waits for nothing, as `missing`."""
        ...

    def missing(self) -> list[str]:
        """What is waited for before frames are looked at; empty once they are."""
        ...

    def status(self) -> Mapping[str, Any]: ...

    def metrics(self) -> bytes:
        """Everything countable, in Prometheus' text format."""
        ...

    def events(self, query: Query) -> list[Mapping[str, Any]]:
        """The latest events first."""
        ...

    def put_camera(self, name: str, settings: Mapping[str, Any]) -> None: ...

    def remove_camera(self, name: str) -> None: ...

    def reload(self) -> Mapping[str, Any]:
        """Read the settings again; returns what changed."""
        ...

    def swap_model(self, weights: str) -> Mapping[str, Any]:
        """Returns what runs now; raises if the old one goes on."""
        ...


class WebServer(HttpServer):
    """Serves in a thread of its own, from its start until it is closed."""

    def __init__(self, service: Service, config: HttpConfig) -> None:
        """Take the address; who asks waits until the start.

        Raises:
            PipelineError: the address cannot be had.
        """
        super().__init__(make_app(service, config), config)


def make_app(service: Service, config: HttpConfig) -> ASGIApp:
    """Return the application, guarded."""
    answers = _Answers(service)
    routes = [
        Route("/healthz", answers.health),
        Route("/readyz", answers.readiness),
        Route("/metrics", answers.metrics),
        Route("/api/status", answers.status),
        Route("/api/events", answers.events),
        Route("/api/cameras/{name}", answers.put_camera, methods=["PUT"]),
        Route("/api/cameras/{name}", answers.remove_camera, methods=["DELETE"]),
        Route("/api/reload", answers.reload, methods=["POST"]),
        Route("/api/model", answers.swap_model, methods=["POST"]),
    ]
    return guarded(routes, config)


class _Answers:
    """One method for each path."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def health(self, _: Request) -> Response:
        return state("faults", self._service.faults())

    async def readiness(self, _: Request) -> Response:
        return state("missing", self._service.missing())

    async def metrics(self, _: Request) -> Response:
        return Response(await run_in_threadpool(self._service.metrics), media_type=EXPOSITION)

    async def status(self, _: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self._service.status))

    async def events(self, request: Request) -> Response:
        found = await asked(self._service.events, _event_query(request.query_params))
        return JSONResponse({"events": found})

    async def put_camera(self, request: Request) -> Response:
        name = request.path_params["name"]
        await asked(self._service.put_camera, name, await _body(request))
        return JSONResponse({"camera": name})

    async def remove_camera(self, request: Request) -> Response:
        name = request.path_params["name"]
        await asked(self._service.remove_camera, name)
        return JSONResponse({"camera": name})

    async def reload(self, _: Request) -> Response:
        return JSONResponse(await asked(self._service.reload))

    async def swap_model(self, request: Request) -> Response:
        body = await _body(request)
        weights = body.get("weights")
        if not isinstance(weights, str) or len(body) != 1:
            raise HTTPException(400, 'expected {"weights": PATH}')
        return JSONResponse(await asked(self._service.swap_model, weights))


async def _body(request: Request) -> dict[str, Any]:
    """Read a JSON object of a size that settings can have."""
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > _MOST_BYTES:
            raise HTTPException(413, f"expected {_MOST_BYTES} bytes at most")
    try:
        tree = json.loads(content)
    except ValueError:
        raise HTTPException(400, "expected JSON") from None
    if not isinstance(tree, dict):
        raise HTTPException(400, f"expected a JSON object, got {type(tree).__name__}")
    return tree


def _event_query(given: Mapping[str, str]) -> Query:
    unknown = given.keys() - {"camera", "kind", "before", "limit"}
    if unknown:
        raise HTTPException(400, f"unknown: {', '.join(sorted(unknown))}")
    try:
        limit = int(given.get("limit", "100"))
        before = float(given["before"]) if "before" in given else None
    except ValueError:
        raise HTTPException(400, "expected numbers for limit and before") from None
    if not 1 <= limit <= _MOST_EVENTS:
        raise HTTPException(400, f"limit: expected 1 to {_MOST_EVENTS}, got {limit}")
    kind = given.get("kind")
    if kind is not None and kind not in get_args(EventKind):
        raise HTTPException(400, f"kind: expected {', '.join(get_args(EventKind))}")
    return Query(camera=given.get("camera"), kind=kind, until_s=before, limit=limit)  # type: ignore[arg-type]
