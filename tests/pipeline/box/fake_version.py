# SPDX-License-Identifier: Apache-2.0
"""The `sightline` of a small fake version: what an update calls, in the standard library alone.

It becomes the one module of a wheel, with a `VERSION` and a `MODE` of its own.
"""

import http.server
import json
import os
import pathlib
import re
import sqlite3
import sys
import time

VERSION = "0"
MODE = "good"


def main() -> int:
    return {
        "doctor": lambda _: 0,
        "warm": warm,
        "migrate": migrate,
        "serve": serve,
        "update": lambda _: 0,
    }[sys.argv[1]](sys.argv[2:])


def warm(_: list[str]) -> int:
    if MODE == "bad-artefact":
        sys.stderr.write("sightline: model.safetensors: damaged; give others\n")
        return 2
    return 0


def migrate(arguments: list[str]) -> int:
    text = pathlib.Path(arguments[0]).read_text()
    if MODE == "bad-migration":
        return 1
    if "schema" in MODE:
        connection = sqlite3.connect("events.db")
        with connection:
            connection.execute("ALTER TABLE events ADD COLUMN more TEXT")
            connection.execute("PRAGMA user_version = 9")
        connection.close()
        text += "# as later versions want it\n"
    sys.stdout.write(text)
    return 0


def serve(arguments: list[str]) -> int:
    if "record" in MODE:
        connection = sqlite3.connect("events.db")
        with connection:
            connection.execute(
                "INSERT INTO events (id, revision, camera, kind, started_s, at_s, open, body) "
                "VALUES (?, 1, 'yard', 'enter', 1, 1, 0, x'')",
                (VERSION,),
            )
            connection.execute("DELETE FROM outbox WHERE seq = 1")
        connection.close()
    if "crash" in MODE:
        return 1
    port = re.search(r"127\.0\.0\.1:(\d+)", pathlib.Path(arguments[0]).read_text())
    assert port is not None
    server = http.server.HTTPServer(("127.0.0.1", int(port[1])), Answer)
    if "dies" in MODE:
        server.timeout = 0.1
        until_s = time.monotonic() + 0.6
        while time.monotonic() < until_s:
            server.handle_request()
        return 1
    server.serve_forever(0.05)
    return 0


class Answer(http.server.BaseHTTPRequestHandler):
    began_s = time.monotonic()

    def do_GET(self) -> None:
        ready = "never-ready" not in MODE
        status = 503 if self.path == "/readyz" and not ready else 200
        tracked = 0 if "blind" in MODE else int(1000 * (time.monotonic() - self.began_s))
        body = json.dumps(
            {
                "version": VERSION,
                "cameras": {
                    "yard": {"counters": {"tracked": tracked}},
                    "gate": {"counters": {"tracked": 0 if "one-eyed" in MODE else tracked}},
                },
                "model": {"engines": [{"input_shape": [1, 96, 160, 3]}]},
            }
        ).encode()
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


if __name__ == "__main__":
    os._exit(main())
