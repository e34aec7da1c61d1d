# SPDX-License-Identifier: Apache-2.0
"""One receiver, one letter: what each kind of failure becomes."""

import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from model.errors import ConfigError
from pipeline.telling.config import WebhookConfig
from pipeline.telling.letters import Letter, Refused, Unreachable, encode_event
from pipeline.telling.signature import HEADER, WINDOW_S, sign, verify
from pipeline.telling.webhook import WebhookReceiver
from tests.pipeline.telling.builders import make_event
from tests.pipeline.telling.http_receiver import HttpReceiver

TOKEN, SIGNING = "t0ken-in-the-path", "signing-s3cret"
LETTER = Letter(key=(make_event().id, 0), body=encode_event(make_event()))


def make_receiver(url: str, **fields: object) -> WebhookReceiver:
    return WebhookReceiver(
        WebhookConfig.model_validate({"name": "a", "url": url, "timeout_s": 0.5, **fields})
    )


@pytest.fixture
def server():
    with HttpReceiver() as server:
        yield server


def test_the_request_says_what_it_is_and_who_sent_it(server):
    receiver = make_receiver(
        f"{server.url}?token={TOKEN}", secret=SIGNING, headers={"Authorization": "Bearer abc"}
    )
    receiver.send([LETTER])
    (request,) = server.requests
    assert request.path == f"/hook?token={TOKEN}"
    assert request.told == {"version": 1, "retry": False, "event": request.told["event"]}
    assert request.headers["X-Sightline-Event"] == f"{LETTER.key[0]}:0"
    assert request.headers["X-Sightline-Retry"] == "false"
    assert request.headers["Authorization"] == "Bearer abc"
    assert verify(SIGNING, request.body, request.headers[HEADER], time.time())


@pytest.mark.parametrize(
    ("secret", "body", "later_s", "right"),
    [
        ("s", b"body", 0, True),
        ("s", b"body", WINDOW_S, True),
        ("s", b"body", WINDOW_S + 1, False),
        ("s", b"body", -WINDOW_S - 1, False),
        ("s", b"bodY", 0, False),
        ("z", b"body", 0, False),
    ],
    ids=["right", "within the window", "replayed", "from the future", "changed", "other secret"],
)
def test_a_signature_holds_for_its_body_secret_and_time(secret, body, later_s, right):
    header = sign("s", b"body", 1_700_000_000)
    assert verify(secret, body, header, 1_700_000_000 + later_s) == right


def test_the_guide_s_lines_verify_a_signature():
    guide = (Path(__file__).parents[3] / "docs/guides/events.md").read_text()
    lines = next(part for part in guide.split("```") if "def is_genuine" in part)
    written: dict[str, Any] = {}
    exec(lines.removeprefix("python\n"), written)
    is_genuine, now_s = written["is_genuine"], time.time()
    assert is_genuine("s", b"body", sign("s", b"body", now_s))
    assert not is_genuine("s", b"bodY", sign("s", b"body", now_s))
    assert not is_genuine("z", b"body", sign("s", b"body", now_s))
    assert not is_genuine("s", b"body", sign("s", b"body", now_s - 400))


@pytest.mark.parametrize("header", ["", "t=1", "v1=00", "t=1,v1=zz", "t=1700000000,v1=" + "0" * 63])
def test_what_is_no_signature_does_not_hold(header):
    assert not verify("s", b"body", header, 1_700_000_000)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 413])
def test_a_receiver_that_does_not_want_a_letter_refuses_it(server, status):
    server.always = status
    with pytest.raises(Refused, match=f"^answers {status}$"):
        make_receiver(server.url).send([LETTER])


@pytest.mark.parametrize("status", [301, 302, 307, 408, 425, 429, 500, 502, 503])
def test_a_receiver_that_cannot_take_it_now_is_asked_again(server, status):
    server.always, server.headers = status, {"Retry-After": "7", "Location": "/elsewhere"}
    with pytest.raises(Unreachable, match=f"^answers {status}$") as told:
        make_receiver(server.url).send([LETTER])
    assert told.value.after_s == 7
    assert [request.path for request in server.requests] == ["/hook"]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("hang", "no answer within 0.5 s"),
        ("drip", "no answer within 0.5 s"),
        ("drop", "refused or broken off"),
        ("garbage", "not HTTP"),
    ],
)
def test_a_receiver_that_fails_is_given_up_in_time(server, answer, says):
    server.always = answer
    began_s = time.monotonic()
    with pytest.raises(Unreachable, match=says):
        make_receiver(server.url).send([LETTER])
    assert time.monotonic() - began_s < 5


def test_an_answer_without_end_is_not_read(server):
    server.answers = ["flood"]
    receiver = make_receiver(server.url)
    receiver.send([LETTER])
    receiver.send([LETTER])
    assert len(server.requests) == 2


def test_nobody_at_the_address_is_said_without_the_address():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        receiver = make_receiver(f"http://127.0.0.1:{taken.getsockname()[1]}/{TOKEN}")
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1: the connection was refused") as told:
            receiver.send([LETTER])
    assert TOKEN not in str(told.value)


def test_a_receiver_that_speaks_no_tls_is_told_nothing(server):
    receiver = make_receiver(server.url.replace("http:", "https:") + TOKEN)
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1: no TLS connection") as told:
        receiver.send([LETTER])
    assert TOKEN not in str(told.value)
    assert server.requests == []


@pytest.fixture
def certificate(tmp_path):
    """A certificate for 127.0.0.1 that no one but its owner trusts, with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    key, found, both = (tmp_path / name for name in ("key", "found", "own.pem"))
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(found)]
    subprocess.run(command, check=True, capture_output=True)
    both.write_bytes(key.read_bytes() + found.read_bytes())
    return both


def test_only_a_certificate_that_is_trusted_is_told_anything(certificate):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with HttpReceiver(tls=tls) as server:
        url = server.url.replace("http:", "https:")
        with pytest.raises(Unreachable, match="certificate is not trusted"):
            make_receiver(url).send([LETTER])
        assert server.requests == []
        make_receiver(url, ca_file=certificate, timeout_s=5.0).send([LETTER])
        with pytest.raises(Unreachable, match="certificate is not trusted"):
            make_receiver(url.replace("127.0.0.1", "localhost"), ca_file=certificate).send([LETTER])
    assert len(server.requests) == 1


def test_certificates_that_cannot_be_read_are_refused(tmp_path):
    (tmp_path / "empty.pem").touch()
    for name, says in (("none.pem", "no such file"), ("empty.pem", "cannot use these")):
        with pytest.raises(ConfigError, match=says):
            make_receiver("https://h/", ca_file=tmp_path / name)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"url": "ftp://h/p4ss"}, "expected http://HOST/PATH"),
        ({"url": "http:///p4ss"}, "expected http://HOST/PATH"),
        ({"url": "http://h:99999/p4ss"}, "expected http://HOST/PATH"),
        ({"url": "http://h/p4ss\r\nX: y"}, "expected http://HOST/PATH"),
        ({"url": "https://u:p4ss@h/"}, "use headers"),
        ({"url": "http://h/", "headers": {"A b": "x"}}, "pattern"),
        ({"url": "http://h/", "headers": {"A": "p4ss\r\nB: c"}}, "one line of Latin-1"),
    ],
)
def test_settings_that_cannot_be_are_refused_without_showing_secrets(fields, says):
    with pytest.raises(ValueError, match=says) as told:
        make_receiver(**{"url": "http://h/"} | fields)
    shown = [fault["msg"] for fault in told.value.errors()]
    assert "p4ss" not in str(shown)
