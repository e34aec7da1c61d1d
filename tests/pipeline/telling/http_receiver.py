# SPDX-License-Identifier: Apache-2.0
"""A web server on loopback that takes events, and can fail in every way."""

import json
import ssl
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FOREVER_S = 30.0


@dataclass(frozen=True, slots=True)
class Request:
    """What came."""

    path: str
    headers: dict[str, str]
    body: bytes
    at_s: float

    @property
    def told(self) -> dict[str, Any]:
        return json.loads(self.body)

    @property
    def key(self) -> tuple[str, int]:
        event = self.told["event"]
        return event["id"], event["revision"]


class HttpReceiver:
    """Answers each request as the next of `answers` says, then with 200.

    An answer is a status, or `hang`, `drop` (end the connection once the body is read), `drip` (a
    byte of the answer now and then), `flood` (an answer without end) or `garbage`.
    """

    def __init__(
        self, *answers: int | str, port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.answers = list(answers)
        self.always: int | str = 200
        self.headers: dict[str, str] = {}
        self.requests: list[Request] = []
        self.lock = threading.Lock()
        self.over = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                receiver._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # whoever asked was killed, or gave up
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def keys(self) -> list[tuple[str, int]]:
        with self.lock:
            return [request.key for request in self.requests]

    def close(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> "HttpReceiver":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers["Content-Length"])
        body = handler.rfile.read(length)
        # One that outlived the server, or whose sender was killed in the middle.
        if self.over.is_set() or len(body) < length:
            handler.close_connection = True
            return
        with self.lock:
            answer = self.answers.pop(0) if self.answers else self.always
            request = Request(handler.path, dict(handler.headers), body, time.time())
            self.requests.append(request)
        if isinstance(answer, int):
            self._say(handler, answer)
        else:
            getattr(self, f"_{answer}")(handler)
            handler.close_connection = True

    def _say(self, handler: BaseHTTPRequestHandler, status: int) -> None:
        handler.send_response(status)
        for name, value in self.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def _hang(self, _: BaseHTTPRequestHandler) -> None:
        self.over.wait(FOREVER_S)

    def _drop(self, _: BaseHTTPRequestHandler) -> None:
        pass

    def _garbage(self, handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"\x00\x01 this is no HTTP\r\n\r\n")

    def _drip(self, handler: BaseHTTPRequestHandler) -> None:
        self._until_gone(handler, b"H", pause_s=0.02)

    def _flood(self, handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        self._until_gone(handler, b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n", pause_s=0.0)

    def _until_gone(self, handler: BaseHTTPRequestHandler, piece: bytes, pause_s: float) -> None:
        try:
            while not self.over.wait(pause_s):
                handler.wfile.write(piece)
        except OSError:
            pass
