# SPDX-License-Identifier: Apache-2.0
"""The subcommand `serve`."""

import logging
import os
import signal
from pathlib import Path
from types import FrameType
from typing import Annotated, Final, Literal

from cyclopts import Parameter

from pipeline.logs import Logs
from pipeline.serve.checked import read_config
from pipeline.serve.hidden import secrets_of
from pipeline.serve.notify import Notifier
from pipeline.serve.service import Service

INTERRUPTED: Final = 130


def serve(
    config: Path,
    *,
    assign: Annotated[tuple[str, ...], Parameter(name="--set", negative=())] = (),
    log_level: Literal["debug", "info", "warning", "error"] = "info",
) -> int:
    """Watch many cameras for months: events out, status and metrics over HTTP.

    SIGTERM and Ctrl-C end it in good order, a second one at once; SIGHUP reads the settings again.

    Args:
        config: Settings as YAML; configs/serve has some, docs/guides/serve.md says more.
        assign: Any setting as name=value, for example cameras.yard.max_fps=10.
        log_level: What is logged, as JSON lines on stderr, or in systemd's journal with fields.
    """
    signals = _Signals()
    manager = Notifier.take_from(os.environ)
    settings = read_config(config, assign)
    Logs(secrets=tuple(secrets_of(settings))).begin(log_level.upper())
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    service = Service(config, assign, manager)
    signals.lead_to(service)
    service.run()
    return INTERRUPTED if signals.last == signal.SIGINT else 0


class _Signals:
    """Keeps the signals that come before there is a service for it."""

    def __init__(self) -> None:
        self._service: Service | None = None
        self._early: list[int] = []
        self.last = 0
        """The last one that was to end the service."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def lead_to(self, service: Service) -> None:
        """Tell a service what came, and from here on what comes."""
        self._service = service
        for number in self._early:
            self._on_signal(number, None)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self._service is None:
            self._early.append(number)
        elif number == signal.SIGHUP:
            self._service.reload_soon()
        else:
            self.last = number
            self._service.stop()
