# SPDX-License-Identifier: Apache-2.0
"""Who may ask: everyone on this machine, or who has the token.

Bound to loopback no token is needed, but a page from elsewhere, shown by a browser here, must not
reach us either: by a name of its own that leads to 127.0.0.1 (the `Host` it sends gives it away),
or by sending something across origins (`Origin` does).
"""

import hmac
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, model_validator
from pydantic_core import PydanticCustomError

from model.config import Settings
from pipeline.secret import Secret

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+):(\d{1,5})")
_SAFE = ("GET", "HEAD")
_LEAST_TOKEN = 16


def _host_and_port(address: str) -> str:
    match = _ADDRESS.fullmatch(address)
    if match is None or int(match[2]) > 65535:
        raise PydanticCustomError(
            "listen", "expected HOST:PORT, such as 127.0.0.1:8710, got {address}",
            {"address": address},
        )  # fmt: skip
    return address


class HttpConfig(Settings):
    """Where status, metrics and the interface for changes are served."""

    listen: Annotated[str, AfterValidator(_host_and_port)] = "127.0.0.1:8710"
    """Host and port; `0.0.0.0` is every address of this machine."""
    token: Secret | None = None
    """What others have to send, as `Authorization: Bearer TOKEN`."""

    @model_validator(mode="after")
    def _guarded(self) -> "HttpConfig":
        if self.token is None and not is_loopback(self.host):
            raise PydanticCustomError(
                "token_needed",
                "{host} can be reached from other machines: give a token, or listen on 127.0.0.1",
                {"host": self.host},
            )
        if self.token is not None and len(self.token.reveal()) < _LEAST_TOKEN:
            raise PydanticCustomError(
                "token_short", "token: expected {least} characters or more", {"least": _LEAST_TOKEN}
            )
        return self

    @property
    def host(self) -> str:
        """The host without brackets."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer instead of what was asked for."""

    status: int
    reason: str


def refusal(method: str, headers: Mapping[str, str], config: HttpConfig) -> Refusal | None:
    """Say why a request is not answered; None if it may be.

    Args:
        method: Of the request.
        headers: With names in lower case.
        config: What we listen on.
    """
    host = headers.get("host", "")
    if is_loopback(config.host) and not is_loopback(_name(host)):
        return Refusal(403, "this host name is not one of this machine's loopback addresses")
    origin = headers.get("origin")
    if method not in _SAFE and origin is not None and urlsplit(origin).netloc != host:
        return Refusal(403, "changes are not taken from pages of other origins")
    if config.token is None:
        return None
    kind, _, given = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and _equal(given.strip(), config.token.reveal()):
        return None
    return Refusal(401, "a token is needed: Authorization: Bearer TOKEN")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host name or address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _name(host: str) -> str:
    """The host of a `Host` header, without port and brackets."""
    return (urlsplit(f"//{host}").hostname or "") if _plain(host) else ""


def _plain(host: str) -> bool:
    return _ADDRESS.fullmatch(host if ":" in host.rpartition("]")[2] else f"{host}:0") is not None


def _equal(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())
