# SPDX-License-Identifier: Apache-2.0
"""Settings of a collector."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from model.config import Settings
from pipeline.config import Silence, TcpAddress
from pipeline.serve.access import HttpConfig
from pipeline.telling.config import Mebibytes


class FleetDatabaseConfig(Settings):
    """Where the events of all boxes are kept, and how long."""

    path: Path = Path("fleet.db")
    keep_days: Annotated[float, Field(gt=0, le=36500)] = 90.0
    """Messages that came in longer ago are removed."""
    keep_mib: Mebibytes = 8192
    """The oldest messages are removed where the database would hold more than this."""


class CollectorConfig(Settings):
    """Takes events and health from the boxes of a fleet."""

    listen: TcpAddress
    """Where boxes come in; `tcp://0.0.0.0:PORT` is every address of this machine."""
    key: Path
    """The collector's secret key, a `.key` file of `sightline keys`."""
    boxes: Path
    """A folder with the public key of each box, `NAME.pub`; a box is called as its file is."""
    database: FleetDatabaseConfig = FleetDatabaseConfig()
    credits: Annotated[int, Field(ge=1, le=1024)] = 64
    """Messages one box may have on their way at a time."""
    silence_s: Silence = 15.0
    """A connection that is silent for so long is over."""
    lost_after_s: Annotated[float, Field(ge=5, le=86400)] = 60.0
    """A box that has not been heard for so long is lost. Boxes pause up to `outbox.longest_pause_s`
    (30 s) between tries, so less than that calls boxes lost that are about to come back."""
    http: HttpConfig | None = HttpConfig(listen="127.0.0.1:8711")
    """Where status and metrics are served; None for nowhere."""
