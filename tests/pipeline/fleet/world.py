# SPDX-License-Identifier: Apache-2.0
"""A fleet on this machine: keys, a collector in a thread, and boxes that tell it events."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import zmq

from pipeline.fleet.collector import Collector
from pipeline.fleet.config import CollectorConfig
from pipeline.fleet.database import Head, Query
from pipeline.fleet.roster import Box
from pipeline.telling.config import FleetConfig
from pipeline.telling.teller import Teller
from pipeline.transport.curve import make_keys, read_keys, read_public
from pipeline.transport.dialling import Dial, Dialled
from pipeline.transport.fleetwire import FLEET_PROTOCOL, Hello, Welcome, encode, from_collector
from tests.pipeline.telling.builders import make_config


class Fleet:
    """Files of a fleet, and its collector while it runs."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.folder, self.keys, self.enrolled = folder, folder / "keys", folder / "boxes"
        self.enrolled.mkdir()
        make_keys("collector", self.keys)
        self.address = "tcp://127.0.0.1:0"
        self.collector: Collector | None = None
        self._thread: threading.Thread | None = None
        for name in names:
            make_keys(name, self.keys)
            self.enrol(name)

    def enrol(self, name: str) -> None:
        shutil.copy(self.keys / f"{name}.pub", self.enrolled)

    def revoke(self, name: str) -> None:
        (self.enrolled / f"{name}.pub").unlink()

    def settings(self, **fields: Any) -> dict[str, Any]:
        plain = {
            "listen": self.address,
            "key": str(self.keys / "collector.key"),
            "boxes": str(self.enrolled),
            "database": {"path": str(self.folder / "fleet.db")},
            "http": None,
        }
        return plain | fields

    def start(self, **fields: Any) -> Collector:
        """Run the collector, where it was before."""
        config = CollectorConfig.model_validate(self.settings(**fields))
        self.collector = collector = Collector(config)
        self.address = collector.address
        self._thread = threading.Thread(target=collector.run)
        self._thread.start()
        return collector

    def stop(self) -> None:
        if self.collector is not None and self._thread is not None:
            self.collector.stop()
            self._thread.join(20)
            assert not self._thread.is_alive()
            self.collector = None

    def told(self, box: str) -> list[str]:
        """`ID:REVISION` of what is kept of a box, in order."""
        assert self.collector is not None
        page = self.collector.database.page(Query(box=box, after=0, limit=1000))
        heads = [msgspec.json.decode(one.event, type=Head) for one in page]
        return [f"{head.id}:{head.revision}" for head in heads]

    def box(self, name: str) -> Box:
        """What the collector knows of a box."""
        assert self.collector is not None
        return next(box for box in self.collector.boxes if box.name == name)

    def fleet_config(self, name: str, **fields: Any) -> FleetConfig:
        plain = {
            "address": self.address,
            "key": self.keys / f"{name}.key",
            "collector_key": self.keys / "collector.pub",
        }
        return FleetConfig.model_validate(plain | fields)

    @contextmanager
    def teller(self, name: str, **fields: Any) -> Iterator[Teller]:
        """A box that tells."""
        teller = Teller(make_config(self.folder / name, fleet=self.fleet_config(name, **fields)))
        try:
            yield teller
        finally:
            teller.close(2.0)

    @contextmanager
    def dialled(self, name: str) -> Iterator[Dialled]:
        """A connection that is welcomed and does what the test wants."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        dial = Dial(
            address=self.address,
            keys=read_keys(self.keys / f"{name}.key"),
            server=read_public(self.keys / "collector.pub"),
            silence_s=10.0,
        )
        connection = Dialled(context, dial)
        try:
            connection.send(encode(Hello(protocol=FLEET_PROTOCOL, version="0")))
            ((header,),) = connection.receive(10.0)
            assert isinstance(from_collector(header), Welcome)
            yield connection
        finally:
            connection.close()
            context.destroy(linger=0)


def names_of(numbers: range) -> list[str]:
    """What `Fleet.told` says of events made by their numbers."""
    return [f"{number:032x}:0" for number in numbers]
