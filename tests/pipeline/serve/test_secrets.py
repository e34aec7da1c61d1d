# SPDX-License-Identifier: Apache-2.0
"""No secret of the settings is in anything a service writes, says or shows, whatever goes wrong."""

import base64
import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import yaml

from tests.pipeline.cameras import SYSTEM_PYTHON, make_film
from tests.pipeline.http_camera import HttpCamera, jpegs_of
from tests.pipeline.scenes import make_card_file
from tests.pipeline.serve.served import Served, served
from tests.pipeline.serve.serving import COMMAND, environment
from tests.pipeline.small_camera import SmallCamera
from tests.pipeline.telling.broker import MOSQUITTO, Broker
from tests.pipeline.telling.http_receiver import HttpReceiver

RIGHT = "right&Pass/w%rd"
"""A password that must be quoted in an address."""
SECRETS = {
    "RIGHT": quote(RIGHT, safe=""),
    "REFUSED": "refused-Wachtwoord",
    "LOST": "Geheimnis-of-one-nobody-answers",
    "HTTP": "jpeg-Parole",
    "QUERY": "query-Losung",
    "PATH": "wrongpath-Kennwort",
    "STRANGE": "stra:nge@Pass/wo?rd#",
    "UNKNOWN": "unknown-scheme-Contrasena",
    "PIPELINE": "pipeline-Lozinka",
    "DECODER": "decoder-Adgangskode",
    "GARBAGE": "garbage-Salasana",
    "MQTT": "broker-Mot-de-passe",
    "SIGNING": "signing-Senha-of-a-webhook",
    "HEADER": "Bearer-header-Jelszo",
    "HOOK": "hook-address-Hasld",
    "TOKEN": "http-Token-with-sixteen",
    "PUT": "put-Parool",
    "WRONG": "wrong-settings-Salasona",
}
USERS = ("bob", "viewer")
NEEDED = pytest.mark.skipif(MOSQUITTO is None, reason="needs mosquitto: apt-get install mosquitto")


def spellings(secret: str) -> Iterator[bytes]:
    """All ways in which a secret might be written."""
    ways = secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1]
    yield from (way.encode() for way in (*ways, escape(secret)))
    for whole in (secret, *(f"{user}:{secret}" for user in USERS)):
        yield base64.b64encode(whole.encode())


def found_in(text: bytes) -> list[str]:
    """Names of the secrets that are in it."""
    everyone = {**SECRETS, "RIGHT, unquoted": RIGHT}
    return [name for name, secret in everyone.items() if any(s in text for s in spellings(secret))]


def leaks_in(text: bytes) -> list[bytes]:
    """The lines that hold a secret."""
    return [line[:2000] for line in text.split(b"\n") if found_in(line)]


def test_every_spelling_would_be_found() -> None:
    assert found_in(f"rtsp://bob:{quote(RIGHT, safe='')}@host".encode()) == [
        "RIGHT", "RIGHT, unquoted"
    ]  # fmt: skip
    assert found_in(f"rtsp://bob:{RIGHT}@host".encode()) == ["RIGHT, unquoted"]
    told = base64.b64encode(f"viewer:{SECRETS['REFUSED']}".encode())
    assert found_in(b"Authorization: Basic " + told) == ["REFUSED"]
    assert found_in(b"rtsp://host/live") == []


@dataclass(frozen=True)
class Aftermath:
    """What there is once everything has failed that can."""

    folder: Path
    answers: bytes
    """Of the service, to whatever was asked and told."""
    processes: bytes
    """What /proc shows to everyone of its processes."""
    told: bytes
    """What a receiver was told."""


@pytest.fixture(scope="module")
def aftermath(tmp_path_factory: pytest.TempPathFactory) -> Aftermath:
    folder = tmp_path_factory.mktemp("aftermath")
    jpegs = jpegs_of(make_film(folder / "film.avi", "mjpeg", num_frames=10))
    (folder / "users").touch()
    answers: list[bytes] = []
    headers = {"Authorization": f"Bearer {SECRETS['TOKEN']}"}
    with (
        Broker(folder, f"password_file {folder / 'users'}") as broker,
        HttpReceiver() as receiver,
        HttpCamera(jpegs, f"bob:{SECRETS['HTTP']}") as http_camera,
        _two_cameras(folder) as (camera, garbage),
    ):
        receiver.always = 500
        cameras = _cameras(camera, garbage, http_camera)
        settings = _settings(folder, cameras, broker.port, receiver.url)
        with served(folder, settings, SECRETS, log_level="debug", headers=headers) as service:
            _force_errors(service, camera, answers)
            answers.append(_asked(service))
            processes = _processes(service)
        told = b"".join(request.body for request in receiver.requests)
    return Aftermath(folder, b"\n".join(answers), processes, told)


@NEEDED
def test_no_secret_is_in_what_a_service_answers(aftermath: Aftermath) -> None:
    assert b"wrong-credentials" in aftermath.answers
    assert b"not valid YAML" in aftermath.answers
    assert leaks_in(aftermath.answers) == []


@NEEDED
def test_no_secret_is_in_what_receivers_are_told(aftermath: Aftermath) -> None:
    assert b"camera-lost" in aftermath.told
    assert leaks_in(aftermath.told) == []


@NEEDED
def test_no_secret_is_in_what_everyone_sees_of_a_service_s_processes(aftermath: Aftermath) -> None:
    assert aftermath.processes.count(b"serve") > 1
    assert leaks_in(aftermath.processes) == []


@NEEDED
def test_no_secret_is_in_what_a_service_writes(aftermath: Aftermath) -> None:
    """Logs at their most talkative, the database, its journal, JSON lines, state, pictures."""
    written = {path for path in aftermath.folder.rglob("*") if path.is_file()}
    assert {"said.txt", "events.db", "events.jsonl"} <= {path.name for path in written}
    users_own = {aftermath.folder / name for name in ("signing.txt", "users")}
    leaks = {path.name: leaks_in(path.read_bytes()) for path in written - users_own}
    assert {name: lines for name, lines in leaks.items() if lines} == {}


@contextmanager
def _two_cameras(folder: Path) -> Iterator[tuple[SmallCamera, SmallCamera]]:
    """One with a picture, and one that sends noise."""
    film = make_film(folder / "film.mp4")
    camera, garbage = SmallCamera(film), SmallCamera(film)
    camera.credentials, garbage.credentials = f"bob:{RIGHT}", f"bob:{SECRETS['GARBAGE']}"
    garbage.garbled = True
    camera.on()
    garbage.on()
    try:
        yield camera, garbage
    finally:
        camera.off()
        garbage.off()


def _cameras(
    camera: SmallCamera, garbage: SmallCamera, http_camera: HttpCamera
) -> dict[str, dict[str, Any]]:
    here, jpegs = f"127.0.0.1:{camera.port}", http_camera.address("").split("@")[1]
    sources = {
        "right": f"rtsp://bob:${{RIGHT}}@{here}/live",
        "refused": f"rtsp://bob:${{REFUSED}}@{here}/live",
        "path": f"rtsp://bob:${{RIGHT}}@{here}/attic?password=${{PATH}}",
        "lost": "rtsp://bob:${LOST}@127.0.0.1:1/live",
        "strange": f"rtsp://bob:${{STRANGE}}@{here}/live",
        "jpegs": f"http://bob:${{HTTP}}@{jpegs}",
        "jpegs-refused": f"http://bob:${{REFUSED}}@{jpegs}",
        "query": f"http://{jpegs}?user=bob&pwd=${{QUERY}}",
        "garbage": f"rtsp://bob:${{GARBAGE}}@127.0.0.1:{garbage.port}/live",
        "pipeline": f"gst:rtspsrc location=rtsp://{here}/live user-id=bob user-pw=${{PIPELINE}}",
    }
    cameras: dict[str, dict[str, Any]] = {name: {"source": at} for name, at in sources.items()}
    if Path(SYSTEM_PYTHON).exists():
        at = f"rtsp://viewer:${{DECODER}}@{here}/live"
        cameras["decoder"] = {"source": at, "decoder": "gstreamer"}
    return cameras


def _settings(
    folder: Path, cameras: dict[str, dict[str, Any]], mqtt_port: int, url: str
) -> dict[str, Any]:
    (folder / "signing.txt").write_text(SECRETS["SIGNING"])
    hook = {
        "secret": {"file": str(folder / "signing.txt")},
        "headers": {"Authorization": "${HEADER}"},
        "timeout_s": 1,
    }
    return {
        "model": {"weights": str(make_card_file(folder / "card.safetensors")), "image_size": 160},
        "source": {"timeout_s": 1, "open_timeout_s": 2},
        "cameras": cameras,
        "events": {
            "mqtt": {
                "host": "127.0.0.1", "port": mqtt_port, "username": "bob", "password": "${MQTT}",
            },
            "webhooks": [
                {"name": "refuses", "url": f"{url}/${{HOOK}}?token=${{HOOK}}", **hook},
                {"name": "away", "url": "http://127.0.0.1:1/${HOOK}", **hook},
            ],
            "jsonl": {"path": "events.jsonl"},
        },
        "http": {"listen": "127.0.0.1:0", "token": "${TOKEN}"},
    }  # fmt: skip


def _force_errors(service: Served, camera: SmallCamera, told: list[bytes]) -> None:
    """Have everything fail that can; keep what is said of it."""
    service.wait(lambda: service.camera("right")["counters"]["tracked"] > 3)
    camera.off()
    camera.on()
    service.wait(lambda: {event["kind"] for event in service.events()} >= {"camera-lost"})
    service.wait(lambda: service.camera("refused")["state"] == "wrong-credentials")
    service.wait(lambda: service.camera("jpegs-refused")["state"] == "wrong-credentials")
    lost = {"path", "lost", "query", "refused", "jpegs-refused", "garbage"}
    service.wait(lambda: lost <= {event["camera"] for event in service.events()})
    service.wait(lambda: all(_failed(service, name) for name in ("refuses", "away", "mqtt")))
    told += _wrong_changes(service)
    told += _wrong_files(service)


def _failed(service: Served, receiver: str) -> bool:
    receivers = service.status()["events"]["receivers"]
    return any(receiver in name and each["last_error"] for name, each in receivers.items())


def _wrong_changes(service: Served) -> Iterator[bytes]:
    """What is answered to cameras that cannot be."""
    secret = SECRETS["PUT"]
    for body in (
        {"source": f"ftp://bob:{secret}@127.0.0.1/live"},
        {"source": [f"rtsp://bob:{secret}@127.0.0.1/live"]},
        {"source": {"file": "missing", "password": secret}},
        {"source": "rtsp://127.0.0.1/live", "pasword": secret},
        {"source": f"bob:{secret}@127.0.0.1/live"},
        {"source": "rtsp://bob:${" + secret.replace("-", "_") + "}@127.0.0.1/live", "x": secret},
        {"source": f"gst:rtspsrc user-pw={secret} ! nothing", "decoder": secret},
    ):
        answer = service.client.put("/api/cameras/new", json=body)
        assert answer.status_code == 400
        yield answer.content
    broken = f'{{"source": "rtsp://bob:{secret}@127.0.0.1/live'
    yield service.client.put("/api/cameras/new", content=broken).content
    taken = {
        "new": f"rtsp://bob:{secret}@127.0.0.1:1/live",
        "new-port": f"rtsp://bob:{secret}@127.0.0.1:port/live",
        "new-6": f"rtsp://bob:{secret}@[::1/live",
        "new-pipeline": f"gst:rtspsrc location=rtsp://127.0.0.1:1/live user-pw={secret}",
    }
    for name, source in taken.items():
        answer = service.client.put(f"/api/cameras/{name}", json={"source": source})
        yield answer.raise_for_status().content
    service.wait(lambda: taken.keys() <= {event["camera"] for event in service.events()})


def _wrong_files(service: Served) -> Iterator[bytes]:
    """What is said of settings that cannot be: to a reload, and at a start."""
    before, secret = service.settings.read_text(), SECRETS["WRONG"]
    address = f"rtsp://bob:{secret}@127.0.0.1/live"
    for tree in (
        {"cameras": {"yard": {"source": [address]}}},
        {"cameras": {"yard": {"sources": address}}},
        {"cameras": {"yard": address}},
        {"cameras": {address: {"source": address}}},
        {"http": {"token": secret[:8]}},
        {"events": {"webhooks": [{"name": "a", "url": f"ftp://bob:{secret}@127.0.0.1"}]}},
        {"events": {"mqtt": {"host": "127.0.0.1", "password": [secret]}}},
    ):
        yield from _refused(service, yaml.safe_dump(yaml.safe_load(before) | tree))
    yield from _refused(service, f"{before}\n  password: '{secret}\n: [")
    yield from _refused(service, f"cameras:\n  yard: {{source: {address}, ]\n")
    yield from _refused(service, f'cameras: {{yard: {{source: "{address}\\q"}}}}\n')
    yield from _refused(service, f"http: {{token: !{secret}}}\n")
    yield from _refused(service, f"http: {{token: *{secret}}}\n")
    service.settings.write_text(before)
    service.client.post("/api/reload").raise_for_status()


def _refused(service: Served, text: str) -> Iterator[bytes]:
    service.settings.write_text(text)
    answer = service.client.post("/api/reload")
    assert answer.status_code == 400
    yield answer.content
    before = service.said().count("not reloaded")
    service.process.send_signal(signal.SIGHUP)
    service.wait(lambda: service.said().count("not reloaded") > before)


def _asked(service: Served) -> bytes:
    """All that it answers."""
    paths = ("/metrics", "/api/status", "/api/events", "/healthz", "/readyz", "/api/nothing")
    return b"\n".join(service.client.get(path).content for path in paths)


def _processes(service: Served) -> bytes:
    folders = list(service.processes())
    return b"\n".join(_read(folder / name) for folder in folders for name in ("cmdline", "comm"))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_settings_that_cannot_be_are_refused_without_what_they_hold(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(f"cameras: {{yard: {{source: 'rtsp://bob:{SECRETS['WRONG']}@127.0.0.1/a}}}}")
    ran = subprocess.run(
        [*COMMAND, "serve", path],
        capture_output=True,
        env={**environment(), **SECRETS},
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stderr.count(b"\n") == 1
    assert found_in(ran.stdout + ran.stderr) == []
