# SPDX-License-Identifier: Apache-2.0
"""Everything countable about a fleet, as Prometheus reads it."""

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from pipeline.fleet.collector import Collector
from pipeline.fleet.roster import Box


def render(collector: Collector) -> bytes:
    """Return all metrics in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(collector))
    return generate_latest(registry)


class _Snapshot:
    """Gives the families of one moment."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def collect(self) -> Iterator[Metric]:
        boxes = self._collector.boxes
        yield from _connections(boxes)
        yield from _messages(boxes)
        yield _cameras(boxes)
        yield GaugeMetricFamily(
            "sightline_fleet_writable", "Whether the database can be written.",
            value=float(self._collector.writable),
        )  # fmt: skip
        yield CounterMetricFamily(
            "sightline_fleet_handshakes_failed", "Connections with a wrong key for the collector.",
            value=self._collector.num_handshakes_failed,
        )  # fmt: skip


def _connections(boxes: Sequence[Box]) -> Iterator[Metric]:
    connected = GaugeMetricFamily(
        "sightline_fleet_box_connected", "1 while the box is heard.", labels=["box"]
    )
    lost = GaugeMetricFamily("sightline_fleet_box_lost", "1 for a box gone silent.", labels=["box"])
    heard = GaugeMetricFamily(
        "sightline_fleet_box_heard_seconds", "When last, in seconds since 1970.", labels=["box"]
    )
    for box in boxes:
        connected.add_metric([box.name], float(box.state == "connected"))
        lost.add_metric([box.name], float(box.state == "lost"))
        if box.heard_s is not None:
            heard.add_metric([box.name], box.heard_s)
    yield from (connected, lost, heard)


def _messages(boxes: Sequence[Box]) -> Iterator[Metric]:
    kept = CounterMetricFamily(
        "sightline_fleet_messages_kept", "Messages ever kept.", labels=["box"]
    )
    known = CounterMetricFamily(
        "sightline_fleet_messages_known", "Messages that had come before.", labels=["box"]
    )
    rejected = CounterMetricFamily(
        "sightline_fleet_messages_rejected", "Messages that were no events.", labels=["box"]
    )
    waiting = GaugeMetricFamily(
        "sightline_fleet_box_waiting", "Messages that wait at the box, as it said.", labels=["box"]
    )
    for box in boxes:
        kept.add_metric([box.name], box.told)
        known.add_metric([box.name], box.known)
        rejected.add_metric([box.name], box.rejected)
        if box.report is not None:
            waiting.add_metric([box.name], box.report.waiting)
    yield from (kept, known, rejected, waiting)


def _cameras(boxes: Sequence[Box]) -> Metric:
    family = GaugeMetricFamily(
        "sightline_fleet_camera_live",
        "1 while a camera gives frames, as its box said.",
        labels=["box", "camera"],
    )
    for box in boxes:
        for name, camera in (box.report.cameras if box.report is not None else {}).items():
            family.add_metric([box.name, name], float(camera.state == "live"))
    return family
