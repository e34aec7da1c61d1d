# SPDX-License-Identifier: Apache-2.0
"""The subcommand `serve`."""

import logging
import signal
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal

from cyclopts import Parameter

from pipeline.logs import Logs
from pipeline.serve.service import Service, read_config, secrets_of


def serve(
    config: Path,
    *,
    assign: Annotated[tuple[str, ...], Parameter(name="--set", negative=())] = (),
    log_level: Literal["debug", "info", "warning", "error"] = "info",
    check: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Watch many cameras for months: events out, status and metrics over HTTP.

    SIGTERM and Ctrl-C end it in good order, a second one at once; SIGHUP reads the settings again.

    Args:
        config: Settings as YAML; configs/serve has some, docs/guides/serve.md says more.
        assign: Any setting as name=value, for example cameras.yard.max_fps=10.
        log_level: What is logged, as JSON lines on stderr.
        check: Only say whether the settings are valid.
    """
    settings = read_config(config, assign)
    if check:
        settings.sources()
        print(f"settings are valid; cameras: {', '.join(settings.cameras) or 'none'}")
        return 0
    Logs(secrets=tuple(secrets_of(settings))).begin(log_level.upper())
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    service = Service(config, assign)

    def stop(_: int, __: FrameType | None) -> None:
        service.stop()

    def reload(_: int, __: FrameType | None) -> None:
        service.reload_soon()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    signal.signal(signal.SIGHUP, reload)
    service.run()
    return 0
