# SPDX-License-Identifier: Apache-2.0
"""A web server on 127.0.0.1 that has one file and can misbehave in every way a download meets."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class FileServer(ThreadingHTTPServer):
    """Serves `content` at every path; what it does wrong is set from outside."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = content
        self.version = '"1"'
        """Its ETag; empty for none."""
        self.cuts: list[int] = []
        """After so many bytes each of the next answers ends."""
        self.ranges = True
        self.declared: int | None = None
        """Content-Length, where it is not true."""
        self.says_length = True
        self.statuses: list[int] = []
        """Of the next answers, instead of the file."""
        self.moved_to = ""
        self.hang = threading.Event()
        """Set, nothing is answered until it is cleared and the client has gone."""
        self.asked: list[str] = []
        """The ranges that were asked for, empty for all."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: FileServer
    timeout = 20

    def do_GET(self) -> None:
        server = self.server
        server.asked.append(self.headers["Range"] or "")
        if server.hang.is_set():
            self.rfile.read(1)  # ends when the client does
            return
        if server.statuses:
            self.send_error(server.statuses.pop(0))
            return
        if server.moved_to and urlsplit(self.path).path != "/moved":
            self.send_response(302)
            self.send_header("Location", server.moved_to)
            self.end_headers()
            return
        self._send()

    def _send(self) -> None:
        server = self.server
        start = self._start()
        body = server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            whole = len(server.content)
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        if server.version:
            self.send_header("ETag", server.version)
        if server.says_length:
            length = len(body) if server.declared is None else server.declared
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)

    def _start(self) -> int:
        """The first byte to send: of a range, if it is asked for of the version that is here."""
        asked, server = self.headers["Range"], self.server
        if not asked or not server.ranges or self.headers["If-Range"] != server.version:
            return 0
        return int(asked.removeprefix("bytes=").removesuffix("-"))

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(content: bytes) -> Iterator[FileServer]:
    """A server with a file, while the block lasts."""
    with FileServer(content) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
