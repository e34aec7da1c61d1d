# SPDX-License-Identifier: Apache-2.0
"""Everything countable about a service, as Prometheus reads it.

Nothing is kept here: each time somebody asks, the families are made from what the supervisor and
the teller know.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric

from pipeline.messages import DecoderKind
from pipeline.metrics import DROPPED, LATENCY_MS, MILESTONES, SKIPPED, Counter, Latency
from pipeline.runner import Supervisor
from pipeline.streams import StreamState
from pipeline.telling.teller import Statistics
from pipeline.transport.control import CameraCondition
from pipeline.trunks import DeviceState

_STATES: Final = (*get_args(CameraCondition), "failed")
_COUNTED: Final[dict[Counter, tuple[str, str]]] = {
    "packets": ("packets", "Packets read from the camera and given to its decoder."),
    "late_packets": ("packets_late", "Packets given up undecoded, as decoding lagged behind."),
    "undecodable": ("packets_undecodable", "Packets no picture came of."),
    "reconnects": ("reconnects", "Times the camera was connected to again."),
    "hardware_lost": ("hardware_lost", "Times the GPU ceased to decode the camera."),
    "decoded": ("frames_decoded", "Frames decoded."),
    "tracked": ("frames_tracked", "Frames the detector looked at and that were tracked."),
    "identities": ("identities", "Tracks that were ever begun."),
}


def render(supervisor: Supervisor, statistics: Statistics, open_incidents: int) -> bytes:
    """Return all metrics in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(supervisor, statistics, open_incidents))
    return generate_latest(registry)


class _Snapshot:
    """Gives the families of one moment."""

    def __init__(self, supervisor: Supervisor, statistics: Statistics, open_incidents: int) -> None:
        self._supervisor = supervisor
        self._statistics = statistics
        self._open_incidents = open_incidents

    def collect(self) -> Iterator[Metric]:
        streams = dict(self._supervisor.streams)
        yield from _counters(self._supervisor.counted())
        yield from _cameras(streams)
        yield _latencies(streams)
        yield from self._engine()
        yield from _receivers(self._statistics)
        yield GaugeMetricFamily(
            "sightline_incidents_open", "Faults told and not over.", value=self._open_incidents
        )

    def _engine(self) -> Iterable[Metric]:
        info = InfoMetricFamily(
            "sightline_engine", "What looks at the frames.", labels=["device", "shape"]
        )
        for engine in self._supervisor.engines_in_use():
            shape = "x".join(map(str, engine.input_shape))
            what = {"name": engine.name, "precision": engine.precision}
            info.add_metric([str(engine.device), shape], what)
        yield info
        yield from _devices(self._supervisor.devices())
        yield GaugeMetricFamily(
            "sightline_model_number",
            "0 for the model of the start, one more for each that was tried since.",
            value=self._supervisor.model.number,
        )
        replaced = CounterMetricFamily(
            "sightline_processes_replaced", "Processes that died and were replaced.",
            labels=["group"],
        )  # fmt: skip
        for group, count in sorted(dict(self._supervisor.num_replaced).items()):
            replaced.add_metric([group], count)
        yield replaced


def _devices(devices: Iterable[DeviceState]) -> Iterator[Metric]:
    cameras = GaugeMetricFamily(
        "sightline_device_cameras", "Cameras that are looked at there.", labels=["device"]
    )
    given_up = GaugeMetricFamily(
        "sightline_device_given_up", "1 where its detector died too often.", labels=["device"]
    )
    for each in devices:
        cameras.add_metric([str(each.device)], len(each.streams))
        given_up.add_metric([str(each.device)], float(bool(each.fault)))
    return iter((cameras, given_up))


def _counters(counted: Mapping[str, Mapping[Counter, int]]) -> Iterator[Metric]:
    for counter, (name, text) in _COUNTED.items():
        family = CounterMetricFamily(f"sightline_{name}", text, labels=["camera"])
        for camera, counts in counted.items():
            family.add_metric([camera], counts[counter])
        yield family
    for name, counters, text in (
        ("skipped", SKIPPED, "Frames the detector was not asked for, by reason."),
        ("dropped", DROPPED, "Frames nobody looked at though they were wanted, by cause."),
    ):
        family = CounterMetricFamily(f"sightline_frames_{name}", text, labels=["camera", "cause"])
        for camera, counts in counted.items():
            for counter in counters:
                cause = counter.removeprefix(f"{name}_").replace("_", "-")
                family.add_metric([camera, cause], counts[counter])
        yield family


def _cameras(streams: Mapping[str, StreamState]) -> Iterator[Metric]:
    states = GaugeMetricFamily(
        "sightline_camera_state", "1 for the state a camera is in.", labels=["camera", "state"]
    )
    since = GaugeMetricFamily(
        "sightline_camera_state_since_seconds", "Since when, in seconds since 1970.",
        labels=["camera"],
    )  # fmt: skip
    decoders = GaugeMetricFamily(
        "sightline_decoder", "1 for who decodes the camera.", labels=["camera", "path"]
    )
    rates = GaugeMetricFamily(
        "sightline_camera_declared_fps", "What the camera says of its rate.", labels=["camera"]
    )
    for camera, state in streams.items():
        now = "failed" if state.failed else state.camera.state
        for each in _STATES:
            states.add_metric([camera, each], float(each == now))
        since.add_metric([camera], state.camera_since_s)
        for path in get_args(DecoderKind):
            decoders.add_metric([camera, path], float(path == state.decoder.path))
        if state.facts is not None:
            rates.add_metric([camera], state.facts.frame_rate)
    return iter((states, since, decoders, rates))


def _latencies(streams: Mapping[str, StreamState]) -> Metric:
    family = HistogramMetricFamily(
        "sightline_latency_seconds",
        "Age of frames since they were captured, when they had come so far.",
        labels=["camera", "milestone"],
    )
    for camera, state in streams.items():
        for milestone in MILESTONES:
            latency = state.counters.latency(milestone)
            family.add_metric([camera, milestone], _buckets(latency), latency.sum_s)
    return family


def _buckets(latency: Latency) -> list[tuple[str, float]]:
    bounds = [*(str(limit / 1000) for limit in LATENCY_MS), "+Inf"]
    total, buckets = 0, []
    for bound, count in zip(bounds, latency.counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return buckets


def _receivers(statistics: Statistics) -> Iterator[Metric]:
    for name, value, text in (
        ("kept", statistics.kept, "Event messages written to the database."),
        ("lost", statistics.lost, "Event messages that never were."),
        ("snapshots_failed", statistics.snapshots_failed, "Pictures that were not written."),
    ):
        yield CounterMetricFamily(f"sightline_events_{name}", text, value=value)
    yield GaugeMetricFamily(
        "sightline_events_writable", "Whether the database can be written.",
        value=float(statistics.writable),
    )  # fmt: skip
    sent = CounterMetricFamily("sightline_receiver_sent", "Messages taken.", labels=["receiver"])
    waiting = GaugeMetricFamily("sightline_receiver_waiting", "Waiting.", labels=["receiver"])
    connected = GaugeMetricFamily(
        "sightline_receiver_connected", "Whether it can be reached.", labels=["receiver"]
    )
    for name, receiver in statistics.receivers.items():
        sent.add_metric([name], receiver.sent)
        waiting.add_metric([name], receiver.waiting)
        connected.add_metric([name], float(receiver.connected))
    yield from (sent, waiting, connected)
