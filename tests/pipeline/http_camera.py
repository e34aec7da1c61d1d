# SPDX-License-Identifier: Apache-2.0
"""A small HTTP camera on 127.0.0.1 that sends JPEG pictures one after another (Motion JPEG)."""

import base64
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

import av

_PERIOD_S = 0.02


def jpegs_of(clip: Path) -> list[bytes]:
    """The pictures of a clip of Motion JPEG."""
    with av.open(str(clip)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


class HttpCamera:
    """Shows its pictures for ever to whom it knows, at /live; elsewhere there is a page."""

    def __init__(self, pictures: list[bytes], credentials: str = "bob:se%cret") -> None:
        self._leaving = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, pictures, credentials))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def address(self, credentials: str = "bob:se%25cret", path: str = "live") -> str:
        return f"http://{credentials}@127.0.0.1:{self._server.server_port}/{path}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._leaving.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def wait(self) -> bool:
        """Wait for the next picture's time; False when the camera is switched off."""
        return not self._leaving.wait(_PERIOD_S)


def _handler(
    camera: HttpCamera, pictures: list[bytes], credentials: str
) -> type[BaseHTTPRequestHandler]:
    expected = f"Basic {base64.b64encode(credentials.encode()).decode()}"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers["Authorization"] != expected:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                self.end_headers()
            elif self.path != "/live":
                self.send_response(404)
                self.end_headers()
            else:
                with suppress(OSError):
                    self._show()

        def _show(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
            self.end_headers()
            number = 0
            while camera.wait():
                picture = pictures[number % len(pictures)]
                head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}"
                self.wfile.write(f"{head}\r\n\r\n".encode() + picture + b"\r\n")
                number += 1

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
