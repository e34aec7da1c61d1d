# SPDX-License-Identifier: Apache-2.0
"""What systemd is told of the service: that it serves, that it is alive, what it is doing.

A message is lines of `NAME=value` in one datagram to the socket that `NOTIFY_SOCKET` names. Where
it is not given, nothing is told. Protocol: sd_notify(3).
"""

import logging
import socket
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Final

logger = logging.getLogger(__name__)

_PATIENCE_S: Final = 1.0
_SIGNS: Final = 4
"""Signs of life in the time after which their absence counts."""


class Notifier:
    """Tells the service manager; may be used by any thread and in a signal handler."""

    def __init__(self, address: str = "", watchdog_s: float = 0.0) -> None:
        """Begin to tell.

        Args:
            address: The manager's socket: a path, or `@name` for an abstract one; empty for nobody.
            watchdog_s: Without a sign of life for so long the service is killed; 0 for never.
        """
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._every_s = watchdog_s / _SIGNS
        self._serves = False
        self._signed_s = 0.0
        self._status = ""

    @classmethod
    def take_from(cls, environment: MutableMapping[str, str]) -> "Notifier":
        """Return one as the environment says, and take it from there: children tell nothing.

        `WATCHDOG_PID` is not compared: it names the process that systemd started, which is ours.
        """
        names = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
        address, usec, _ = (environment.pop(name, "") for name in names)
        return cls(address, int(usec) / 1e6 if usec.isdigit() else 0.0)

    def serving(self) -> None:
        """Tell that it serves, and from then on that it is alive, as often as is asked for."""
        now_s = time.monotonic()
        if not self._serves:
            self._serves = True
            self._tell("READY=1", "WATCHDOG=1")
        elif not self._every_s or now_s - self._signed_s < self._every_s:
            return
        else:
            self._tell("WATCHDOG=1")
        self._signed_s = now_s

    def status(self, text: str) -> None:
        """Tell people in a line how it is, if it is otherwise than before."""
        if text != self._status:
            self._status = text
            self._tell(f"STATUS={' '.join(text.splitlines())}")

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Tell that settings are read again, and when that is over."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            yield
        finally:
            self._tell("READY=1")

    def stopping(self) -> None:
        """Tell that it is about to end."""
        self._tell("STOPPING=1")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
            line.settimeout(_PATIENCE_S)
            try:
                line.sendto("\n".join(lines).encode(), self._address)
            except OSError as failure:  # the next sign of life may come through
                logger.debug("the service manager was not told %s: %s", lines[0], failure)
