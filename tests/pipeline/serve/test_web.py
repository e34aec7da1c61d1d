# SPDX-License-Identifier: Apache-2.0
"""The answers of a service over HTTP."""

import socket
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest

from model.errors import ConfigError
from pipeline.errors import PipelineError
from pipeline.secret import Secret
from pipeline.serve.access import HttpConfig
from pipeline.serve.web import Query, WebServer

TOKEN = "a-token-of-some-length"


class Told:
    """A service that notes what it is told."""

    def __init__(self) -> None:
        self.faulty: list[str] = []
        self.lacking: list[str] = []
        self.cameras: dict[str, Mapping[str, Any]] = {}
        self.queries: list[Query] = []

    def faults(self) -> list[str]:
        return self.faulty

    def missing(self) -> list[str]:
        return self.lacking

    def status(self) -> Mapping[str, Any]:
        return {"cameras": list(self.cameras)}

    def metrics(self) -> bytes:
        return b"sightline_frames_total 3\n"

    def events(self, query: Query) -> list[Mapping[str, Any]]:
        self.queries.append(query)
        return [{"id": "1"}]

    def put_camera(self, name: str, settings: Mapping[str, Any]) -> None:
        if "source" not in settings:
            raise ConfigError(f"cameras.{name}.source: field required")
        self.cameras[name] = settings

    def remove_camera(self, name: str) -> None:
        if self.cameras.pop(name, None) is None:
            raise PipelineError(f"there is no camera {name}")

    def reload(self) -> Mapping[str, Any]:
        return {"added": []}

    def swap_model(self, weights: str) -> Mapping[str, Any]:
        if weights == "broken":
            raise RuntimeError("a fault of our own")
        return {"weights": weights}


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def client(told: Told) -> Iterator[httpx.Client]:
    server = WebServer(told, HttpConfig(listen="127.0.0.1:0"))
    server.start()
    with httpx.Client(base_url=server.address, timeout=10) as client:
        yield client
    server.close()


def test_health_and_readiness_are_codes_and_reasons(client: httpx.Client, told: Told) -> None:
    assert (client.get("/healthz").status_code, client.get("/readyz").status_code) == (200, 200)
    told.faulty, told.lacking = ["the detector died"], ["the engine is being built"]
    ill, unready = client.get("/healthz"), client.get("/readyz")
    assert (ill.status_code, ill.json()["faults"]) == (503, told.faulty)
    assert (unready.status_code, unready.json()["missing"]) == (503, told.lacking)


def test_metrics_have_the_type_prometheus_asks_for(client: httpx.Client) -> None:
    answer = client.get("/metrics")
    assert answer.content == b"sightline_frames_total 3\n"
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")


def test_cameras_come_and_go(client: httpx.Client, told: Told) -> None:
    assert client.put("/api/cameras/yard", json={"source": "0"}).status_code == 200
    assert told.cameras == {"yard": {"source": "0"}}
    assert client.get("/api/status").json() == {"cameras": ["yard"]}
    assert client.delete("/api/cameras/yard").status_code == 200
    gone = client.delete("/api/cameras/yard")
    assert (gone.status_code, gone.json()) == (400, {"error": "there is no camera yard"})


@pytest.mark.parametrize(
    ("content", "status", "says"),
    [
        (b"{}", 400, "cameras.yard.source: field required"),
        (b"[1]", 400, "expected a JSON object, got list"),
        (b"{", 400, "expected JSON"),
        (b"\xff", 400, "expected JSON"),
        (b" " * (65 << 10), 413, "65536 bytes at most"),
    ],
)
def test_a_bad_body_is_answered_in_a_line(
    client: httpx.Client, content: bytes, status: int, says: str
) -> None:
    answer = client.put("/api/cameras/yard", content=content)
    assert (answer.status_code, says in answer.json()["error"]) == (status, True)


def test_events_are_asked_for_by_camera_kind_and_time(client: httpx.Client, told: Told) -> None:
    asked = {"camera": "yard", "kind": "line", "before": "12.5", "limit": "3"}
    assert client.get("/api/events", params=asked).json() == {"events": [{"id": "1"}]}
    assert told.queries == [Query(camera="yard", kind="line", until_s=12.5, limit=3)]
    for wrong in ({"limit": "0"}, {"limit": "x"}, {"cam": "yard"}, {"kind": "fly"}):
        assert client.get("/api/events", params=wrong).status_code == 400


def test_the_model_is_changed_by_a_path(client: httpx.Client) -> None:
    changed = client.post("/api/model", json={"weights": "new.safetensors"})
    assert changed.json() == {"weights": "new.safetensors"}
    assert client.post("/api/model", json={"weight": 3}).status_code == 400
    assert client.post("/api/reload").json() == {"added": []}


def test_a_fault_of_our_own_is_not_shown(client: httpx.Client) -> None:
    answer = client.post("/api/model", json={"weights": "broken"})
    assert (answer.status_code, "fault of our own" in answer.text) == (500, False)


def test_unknown_paths_and_methods_are_refused(client: httpx.Client) -> None:
    assert client.get("/api/nothing").status_code == 404
    assert client.post("/metrics").status_code == 405


def test_without_the_token_nothing_is_answered(told: Told) -> None:
    server = WebServer(told, HttpConfig(listen="127.0.0.1:0", token=Secret(TOKEN)))
    server.start()
    try:
        for path in ("/healthz", "/metrics", "/api/status", "/nothing"):
            refused = httpx.get(server.address + path)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        header = {"Authorization": f"Bearer {TOKEN}"}
        assert httpx.get(server.address + "/api/status", headers=header).status_code == 200
    finally:
        server.close()


def test_an_address_that_is_taken_is_said(told: Told) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PipelineError, match=f"127.0.0.1:{port}: address already in use"):
            WebServer(told, HttpConfig(listen=f"127.0.0.1:{port}"))
