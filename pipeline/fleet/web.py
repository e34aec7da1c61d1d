# SPDX-License-Identifier: Apache-2.0
"""What a running collector answers over HTTP.

    GET    /healthz      200 while the collector works, else 503
    GET    /readyz       the same: it takes messages from its start on
    GET    /metrics      for Prometheus
    GET    /api/boxes    every box: its state, when it was heard, its cameras and counters
    GET    /api/events   messages, the latest first: ?box= &camera= &kind= &before= &limit=
                         or from a number on, in the order they came: ?after=

Nothing can be changed here. Who may ask is as for a service, see `pipeline/serve/access.py`.
"""

import sqlite3
from collections.abc import Mapping
from typing import Final

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from pipeline.errors import PipelineError
from pipeline.fleet import metrics
from pipeline.fleet.collector import Collector
from pipeline.fleet.database import Query
from pipeline.serve.access import HttpConfig
from pipeline.serve.answering import EXPOSITION, asked, guarded, state

_MOST_EVENTS: Final = 1000
_TEXTS: Final = frozenset({"box", "camera", "kind"})
_NUMBERS: Final = frozenset({"before", "after", "limit"})


def make_app(collector: Collector, config: HttpConfig) -> ASGIApp:
    """Return the application, guarded."""
    answers = _Answers(collector)
    routes = [
        Route("/healthz", answers.health),
        Route("/readyz", answers.readiness),
        Route("/metrics", answers.metrics),
        Route("/api/boxes", answers.boxes),
        Route("/api/events", answers.events),
    ]
    return guarded(routes, config)


class _Answers:
    """One method for each path."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    async def health(self, _: Request) -> Response:
        return state("faults", self._collector.faults())

    async def readiness(self, _: Request) -> Response:
        return state("missing", self._collector.faults())

    async def metrics(self, _: Request) -> Response:
        text = await run_in_threadpool(metrics.render, self._collector)
        return Response(text, media_type=EXPOSITION)

    async def boxes(self, _: Request) -> Response:
        return JSONResponse({"boxes": msgspec.to_builtins(self._collector.boxes)})

    async def events(self, request: Request) -> Response:
        page = await asked(self._page, _query(request.query_params))
        return Response(page, media_type="application/json")

    def _page(self, query: Query) -> bytes:
        try:
            return msgspec.json.encode({"events": self._collector.database.page(query)})
        except sqlite3.Error as failure:
            raise PipelineError(f"the events cannot be read now: {failure}") from None


def _query(given: Mapping[str, str]) -> Query:
    if unknown := given.keys() - _TEXTS - _NUMBERS:
        raise HTTPException(400, f"unknown: {', '.join(sorted(unknown))}")
    try:
        numbers = {name: int(given[name]) for name in _NUMBERS & given.keys()}
    except ValueError:
        raise HTTPException(400, "expected numbers for before, after and limit") from None
    if not 1 <= numbers.get("limit", 1) <= _MOST_EVENTS:
        raise HTTPException(400, f"limit: expected 1 to {_MOST_EVENTS}, got {numbers['limit']}")
    if any(abs(number) >= 1 << 63 for number in numbers.values()):
        raise HTTPException(400, "expected numbers of 63 bits at most")
    texts = {name: given[name] for name in _TEXTS & given.keys()}
    return Query(**texts, **numbers)  # type: ignore[arg-type]
