# SPDX-License-Identifier: Apache-2.0
"""Who decodes a stream, told to the supervisor and counted, by the stage in which it is known."""

import logging

from pipeline.decoding.hardware import MadeBy
from pipeline.metrics import Counters
from pipeline.transport.control import DecodePath
from pipeline.transport.ports import Ports

logger = logging.getLogger(__name__)


def tell_who_decodes(ports: Ports, stream: str, counters: Counters, news: MadeBy | None) -> None:
    """Tell it if it is new; None for nothing new."""
    if news is None:
        return
    counters.add("hardware_lost", news.lost)
    ports.report(DecodePath(path=news.kind, reason=news.reason))
    told = f": {news.reason}" if news.reason else ""
    logger.info("%s: decoded by %s%s", stream, news.kind, told)
