# SPDX-License-Identifier: Apache-2.0
"""remote: infer and suppress on another host.

Pixels go there and boxes come back; tombstones and ends need no looking at and pass by, since
`track` puts each stream in order. A frame is acknowledged when its tracks are safe, so its slot is
held and can be sent again to a worker that comes back.
"""

from collections.abc import Callable
from concurrent.futures import Future

from pipeline.columns import detections_from_buffers
from pipeline.errors import StageError
from pipeline.messages import Dropped, Found, Frame, timing
from pipeline.transport.control import EngineBuilt
from pipeline.transport.links import Delivery
from pipeline.transport.pool import SlotGone
from pipeline.transport.ports import Ports
from pipeline.transport.uplink import Answer, Asked, Uplink


class Remote:
    """Has a worker look at the frames of all streams."""

    def __init__(self, make_uplink: Callable[[], Uplink]) -> None:
        self._uplink = make_uplink()
        self._asked: dict[int, Delivery] = {}
        self._next = 0

    def run(self, ports: Ports) -> tuple[str, ...]:
        """Serve until the supervisor ends the run."""
        self._uplink.open()
        try:
            while True:
                delivery = ports.receive("frames", wake=self._uplink.news.fileno())
                if delivery is not None:
                    self._accept(ports, delivery)
                self._hear(ports)
        finally:
            self._uplink.close()

    def _accept(self, ports: Ports, delivery: Delivery) -> None:
        message = delivery.message
        if not isinstance(message, Frame):
            ports.send("found", message, on_acknowledged=delivery.acknowledge)
            return
        try:
            image = ports.pools.view(message.image)
        except SlotGone:  # its stream ended, or its decoder died and the next one sends it again
            delivery.acknowledge()
            return
        number, self._next = self._next, self._next + 1
        self._asked[number] = delivery
        looks, height, width, channels = image.shape
        self._uplink.ask(
            Asked(
                number=number,
                stream=message.stream,
                pixels=image.reshape(-1).data,
                shape=(looks, height, width, channels),
                source_hw=message.source_hw,
                regions=message.regions,
                priority=message.priority,
                late_ns=message.expires_ns,
            )
        )

    def _hear(self, ports: Ports) -> None:
        for news in self._uplink.news.take():
            match news:
                case Answer():
                    self._pass_on(ports, news)
                case EngineBuilt():
                    ports.report(news)
                case Future():
                    news.result()  # raises what ended the connection

    def _pass_on(self, ports: Ports, answer: Answer) -> None:
        delivery = self._asked.pop(answer.number)
        message = delivery.message
        assert isinstance(message, Frame)
        if answer.columns is None:
            dropped = Dropped(**timing(message), cause="late")
            ports.send("found", dropped, on_acknowledged=delivery.acknowledge)
            return
        try:
            detections_from_buffers(tuple(map(memoryview, answer.columns)))
        except ValueError as error:
            raise StageError(
                f"{self._uplink.address}: what it sent are no detections ({error}); "
                "run one version of Sightline on both hosts"
            ) from error
        ports.send(
            "found",
            Found(**timing(message), part=message.part),
            answer.columns,
            on_acknowledged=delivery.acknowledge,
        )
