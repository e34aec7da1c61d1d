# SPDX-License-Identifier: Apache-2.0
"""Answering HTTP, whatever it is about: the server, its guard, and answers all have.

Errors are `{"error": ONE LINE}`.
"""

import logging
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from model.errors import ModelError
from pipeline.errors import PipelineError
from pipeline.serve.access import HttpConfig, refusal

logger = logging.getLogger(__name__)

EXPOSITION: Final = "text/plain; version=0.0.4; charset=utf-8"
"""The type of Prometheus' text format."""
_STOP_S: Final = 5.0


class HttpServer:
    """Serves in a thread of its own, from its start until it is closed."""

    def __init__(self, app: ASGIApp, config: HttpConfig) -> None:
        """Take the address; who asks waits until the start.

        Raises:
            PipelineError: the address cannot be had.
        """
        self._socket = _listening(config)
        self.address = "http://{}:{}".format(*_shown(self._socket))
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                timeout_graceful_shutdown=round(_STOP_S),
                limit_concurrency=64,
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="web", daemon=True
        )

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Answer what has been asked, then leave."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(2 * _STOP_S)
        self._socket.close()


def guarded(routes: Sequence[Route], config: HttpConfig) -> ASGIApp:
    """Return the application of routes, which turns away whoever may not ask."""
    handlers: Mapping[Any, Any] = {HTTPException: _refused, Exception: _failed}
    return _Guard(Starlette(routes=routes, exception_handlers=handlers), config)


async def asked(method: Callable[..., Any], *arguments: Any) -> Any:
    """Call what blocks; what is wrong with the request is the asker's to mend."""
    try:
        return await run_in_threadpool(method, *arguments)
    except (ModelError, PipelineError) as error:
        raise HTTPException(400, str(error)) from None


def state(what: str, reasons: list[str]) -> Response:
    """Answer whether all is well, and what is not."""
    return JSONResponse({"ok": not reasons, what: reasons}, 503 if reasons else 200)


class _Guard:
    """Turns away whoever may not ask, before anything of the request is looked at."""

    def __init__(self, app: ASGIApp, config: HttpConfig) -> None:
        self._app = app
        self._config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        refused = refusal(scope["method"], headers, self._config)
        if refused is None:
            await self._app(scope, receive, send)
            return
        extra = {"WWW-Authenticate": "Bearer"} if refused.status == 401 else None
        answer = JSONResponse({"error": refused.reason}, refused.status, headers=extra)
        await answer(scope, receive, send)


async def _refused(_: Request, refused: HTTPException) -> Response:
    return JSONResponse({"error": refused.detail}, refused.status_code)


async def _failed(request: Request, failure: Exception) -> Response:
    logger.error("%s failed", request.url.path, exc_info=failure)
    return JSONResponse({"error": "the service failed; its log says how"}, 500)


def _listening(config: HttpConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        return socket.create_server((config.host, config.port), family=family)
    except OSError as failure:
        reason = (failure.strerror or str(failure)).lower()
        raise PipelineError(f"http.listen: {config.listen}: {reason}") from None


def _shown(listening: socket.socket) -> tuple[str, int]:
    host, port = listening.getsockname()[:2]
    return (f"[{host}]" if ":" in host else host), port
