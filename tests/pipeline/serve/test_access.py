# SPDX-License-Identifier: Apache-2.0
"""Who may ask a service, and who may not."""

import pytest
from pydantic import ValidationError

from pipeline.secret import Secret
from pipeline.serve.access import HttpConfig, refusal

TOKEN = "a-token-of-some-length"
HERE = HttpConfig()
GUARDED = HttpConfig(listen="0.0.0.0:8710", token=Secret(TOKEN))


def status(method: str, config: HttpConfig, **headers: str) -> int | None:
    refused = refusal(method, headers, config)
    return None if refused is None else refused.status


@pytest.mark.parametrize("host", ["127.0.0.1:8710", "localhost:8710", "[::1]:8710", "127.0.0.1"])
def test_this_machine_may_ask_without_a_token(host: str) -> None:
    assert status("GET", HERE, host=host) is None
    assert status("POST", HERE, host=host) is None
    assert status("POST", HERE, host=host, origin=f"http://{host}") is None


@pytest.mark.parametrize(
    "host", ["", "evil.example:8710", "127.0.0.1.evil.example", "a b", "x@[::1]"]
)
def test_a_name_that_only_leads_here_is_turned_away(host: str) -> None:
    assert status("GET", HERE, host=host) == 403


def test_a_page_from_elsewhere_cannot_change_anything() -> None:
    page = {"host": "127.0.0.1:8710", "origin": "http://evil.example"}
    assert status("POST", HERE, **page) == 403
    assert status("DELETE", GUARDED, authorization=f"Bearer {TOKEN}", **page) == 403
    assert status("POST", HERE, host="127.0.0.1:8710", origin="null") == 403


@pytest.mark.parametrize(
    "given", ["", TOKEN, "Bearer", f"Basic {TOKEN}", "Bearer \u00e9", f"Bearer {TOKEN}x"]
)
def test_from_elsewhere_only_the_token_lets_in(given: str) -> None:
    assert status("GET", GUARDED, host="box.example", authorization=given) == 401


def test_the_token_lets_in() -> None:
    assert status("GET", GUARDED, host="box.example", authorization=f"bearer  {TOKEN}") is None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"listen": "0.0.0.0:80"}, "can be reached from other machines: give a token"),
        ({"listen": "box.example:80"}, "give a token"),
        ({"listen": "[::]:80"}, "give a token"),
        ({"listen": "127.0.0.1"}, "expected HOST:PORT"),
        ({"listen": "127.0.0.1:70000"}, "expected HOST:PORT"),
        ({"token": "short"}, "16 characters or more"),
    ],
)
def test_what_would_be_open_or_cannot_be_is_refused(settings: dict[str, str], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        HttpConfig.model_validate(settings)
