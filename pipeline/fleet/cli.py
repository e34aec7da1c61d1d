# SPDX-License-Identifier: Apache-2.0
"""The subcommand `collect`."""

import logging
import signal
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Final, Literal

from cyclopts import Parameter

from model.config import load_settings
from pipeline.fleet.collector import Collector
from pipeline.fleet.config import CollectorConfig
from pipeline.fleet.web import make_app
from pipeline.logs import Logs
from pipeline.serve.answering import HttpServer
from pipeline.serve.hidden import secrets_of

INTERRUPTED: Final = 130


def collect(
    config: Path,
    *,
    assign: Annotated[tuple[str, ...], Parameter(name="--set", negative=())] = (),
    log_level: Literal["debug", "info", "warning", "error"] = "info",
) -> int:
    """Take events and health from the boxes of a fleet, until SIGTERM or Ctrl-C.

    What passes between them is encrypted, and only boxes whose public key is in the folder `boxes`
    are heard; docs/guides/fleet.md says how a box is enrolled and revoked.

    Args:
        config: Settings as YAML, such as configs/fleet/collector.yaml.
        assign: Any setting as name=value, for example http.listen=127.0.0.1:8712.
        log_level: What is logged, as JSON lines on stderr.
    """
    settings = load_settings(CollectorConfig, config, assign)
    Logs(secrets=tuple(secrets_of(settings))).begin(log_level.upper())
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    collector = Collector(settings)
    with ExitStack() as ending:
        ending.callback(collector.close)
        if settings.http is not None:
            web = HttpServer(make_app(collector, settings.http), settings.http)
            web.start()
            ending.callback(web.close)
            logging.getLogger(__name__).info("status at %s", web.address)
        came = _stop_on_signals(collector)
        collector.run()
    return INTERRUPTED if came == [signal.SIGINT] else 0


def _stop_on_signals(collector: Collector) -> list[int]:
    """Have SIGTERM and Ctrl-C end it in good order, a second one at once; which one came."""
    before: dict[int, Any] = {}
    came: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        came.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)
        collector.stop()

    before.update({n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)})
    return came
