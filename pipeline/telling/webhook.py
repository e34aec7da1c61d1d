# SPDX-License-Identifier: Apache-2.0
"""Posts each event to a web address, signed.

By the standard library: it verifies certificates, follows no redirect and asks no proxy by itself,
and what it lacks for this, a limit to the whole request, no other library has either.
"""

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from model.errors import ConfigError
from pipeline.telling.config import WebhookConfig
from pipeline.telling.letters import Letter, Refused, Unreachable
from pipeline.telling.signature import HEADER, sign

_MOST_ANSWER_BYTES: Final = 65_536
_REUSE_S: Final = 1.0
"""A connection that was idle for longer may be about to be closed by the other side."""
_LATER: Final = frozenset({408, 425, 429})
"""Answers of the 400s that say: not now."""


class WebhookReceiver:
    """One web address."""

    window = 1

    def __init__(self, config: WebhookConfig) -> None:
        self.name = f"webhook {config.name}"
        self.connected = False
        self._config = config
        self._url = urlsplit(config.url.reveal())
        self._tls = trusting(config.ca_file) if self._url.scheme == "https" else None
        self._connection: http.client.HTTPConnection | None = None
        self._used_s = 0.0

    def ready(self) -> None:
        """Nothing: who has nothing to say need not connect."""

    def send(self, letters: Sequence[Letter]) -> None:
        """Post letters one after the other."""
        for num_done, letter in enumerate(letters):
            self.connected = False
            status, after_s = self._post(letter)
            self.connected = 200 <= status < 300
            if self.connected:
                continue
            if 400 <= status < 500 and status not in _LATER:
                raise Refused(f"answers {status}", num_done=num_done)
            raise Unreachable(f"answers {status}", num_done=num_done, after_s=after_s)

    def close(self) -> None:
        """Leave."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _post(self, letter: Letter) -> tuple[int, float]:
        """Status of the answer, and how long to wait if it says so."""
        body = letter.text
        if time.monotonic() > self._used_s + _REUSE_S:
            self.close()
        connection = self._connection = self._connection or self._connect()
        try:
            with _given_up_after(self._config.timeout_s, connection):
                connection.request("POST", self._target, body, self._headers(letter, body))
                response = connection.getresponse()
                response.read(_MOST_ANSWER_BYTES)
        except (OSError, http.client.HTTPException, ValueError) as failure:
            self.close()
            raise Unreachable(self._reason(failure)) from None
        if not response.isclosed():  # more than we want to read
            self.close()
        self._used_s = time.monotonic()
        after = response.headers.get("Retry-After", "")
        return response.status, float(after) if after.isdecimal() and len(after) < 6 else 0.0

    def _connect(self) -> http.client.HTTPConnection:
        host, port, timeout_s = self._url.hostname or "", self._url.port, self._config.timeout_s
        if self._tls is None:
            return http.client.HTTPConnection(host, port, timeout=timeout_s)
        return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=self._tls)

    @property
    def _target(self) -> str:
        path = self._url.path or "/"
        return f"{path}?{self._url.query}" if self._url.query else path

    def _headers(self, letter: Letter, body: bytes) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "sightline",
            "X-Sightline-Event": f"{letter.key[0]}:{letter.key[1]}",
            "X-Sightline-Retry": "true" if letter.retry else "false",
        }
        if self._config.secret is not None:
            headers[HEADER] = sign(self._config.secret.reveal(), body, time.time())
        return headers | {name: text.reveal() for name, text in self._config.headers.items()}

    def _reason(self, failure: Exception) -> str:
        """What went wrong, in words that cannot hold any part of the address or the headers."""
        host = self._url.hostname
        match failure:
            case ssl.SSLCertVerificationError():
                return f"{host}: its certificate is not trusted ({failure.verify_message})"
            case ssl.SSLError():
                return f"{host}: no TLS connection ({(failure.reason or 'broken').lower()})"
            case TimeoutError():
                return f"{host}: no answer within {self._config.timeout_s:g} s"
            case socket.gaierror():
                return f"{host}: its name cannot be resolved"
            case http.client.RemoteDisconnected() | ConnectionError():
                return f"{host}: the connection was refused or broken off"
            case OSError():
                return f"{host}: {(failure.strerror or 'cannot be reached').lower()}"
        return f"{host}: its answer is not HTTP ({type(failure).__name__})"


def trusting(ca_file: Path | None) -> ssl.SSLContext:
    """What verifies certificates.

    Raises:
        ConfigError: the file of certificates cannot be used.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as failure:
        reason = (failure.strerror or "it holds no certificate").lower()
        raise ConfigError(f"{ca_file}: cannot use these certificates: {reason}") from None


@contextmanager
def _given_up_after(limit_s: float, connection: http.client.HTTPConnection) -> Iterator[None]:
    """End the connection after a time, however slowly the other side goes on."""
    late = threading.Event()

    def give_up() -> None:
        late.set()
        if connection.sock is not None:
            with contextlib.suppress(OSError):  # it has ended meanwhile
                socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)

    timer = threading.Timer(limit_s, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError):
        if late.is_set():
            raise TimeoutError from None
        raise
    finally:
        timer.cancel()
