# SPDX-License-Identifier: Apache-2.0
"""The metrics of a running service, read by Prometheus' own parser."""

from collections import Counter, defaultdict
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.pipeline.serve.fault_kit import FAULTS
from tests.pipeline.serve.world import NAMES, World, world

CAMERA, CAUSE = {"camera"}, {"camera", "cause"}
PROMISED = {
    "sightline_packets": ("counter", CAMERA),
    "sightline_packets_late": ("counter", CAMERA),
    "sightline_packets_undecodable": ("counter", CAMERA),
    "sightline_reconnects": ("counter", CAMERA),
    "sightline_hardware_lost": ("counter", CAMERA),
    "sightline_decoder": ("gauge", {"camera", "path"}),
    "sightline_frames_decoded": ("counter", CAMERA),
    "sightline_frames_tracked": ("counter", CAMERA),
    "sightline_frames_skipped": ("counter", CAUSE),
    "sightline_frames_dropped": ("counter", CAUSE),
    "sightline_identities": ("counter", CAMERA),
    "sightline_camera_state": ("gauge", {"camera", "state"}),
    "sightline_camera_state_since_seconds": ("gauge", CAMERA),
    "sightline_camera_declared_fps": ("gauge", CAMERA),
    "sightline_latency_seconds": ("histogram", {"camera", "milestone"}),
    "sightline_engine_info": ("gauge", {"device", "shape", "name", "precision"}),
    "sightline_device_cameras": ("gauge", {"device"}),
    "sightline_device_given_up": ("gauge", {"device"}),
    "sightline_model_number": ("gauge", set()),
    "sightline_processes_replaced": ("counter", {"group"}),
    "sightline_events_kept": ("counter", set()),
    "sightline_events_lost": ("counter", set()),
    "sightline_events_snapshots_failed": ("counter", set()),
    "sightline_events_writable": ("gauge", set()),
    "sightline_receiver_sent": ("counter", {"receiver"}),
    "sightline_receiver_waiting": ("gauge", {"receiver"}),
    "sightline_receiver_connected": ("gauge", {"receiver"}),
    "sightline_incidents_open": ("gauge", set()),
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A service one of whose processes was killed, and whose cameras show nothing any more."""
    http = {"listen": "127.0.0.1:0"}
    with world(tmp_path_factory.mktemp("world"), with_broker=False, http=http) as built:
        FAULTS["trunk killed"].begin(built)
        built.wait(lambda: len(built.service._supervisor.replaced) == 1, "the trunk's return")
        seen = {name: len(built.service.seen[name]) for name in NAMES}
        for name in NAMES:
            built.wait(lambda name=name: len(built.service.seen[name]) > seen[name] + 5, name)
        built.wait(lambda: built.receiver.requests, "an event")
        for camera in built.cameras.values():
            camera.frozen = True
        yield built


def families(running: World) -> dict[str, Metric]:
    assert running.service._web is not None
    text = httpx.get(f"{running.service._web.address}/metrics").raise_for_status().text
    return {family.name: family for family in text_string_to_metric_families(text)}


def values(metric: Metric, suffix: str = "") -> dict[str, float]:
    """The sum of its samples for each camera."""
    sums: defaultdict[str, float] = defaultdict(float)
    for sample in metric.samples:
        if sample.name == metric.name + suffix:
            sums[sample.labels["camera"]] += sample.value
    return dict(sums)


def test_every_family_is_there_with_its_type_and_its_labels(running: World) -> None:
    found = families(running)
    assert found.keys() == PROMISED.keys()
    for name, (kind, labels) in PROMISED.items():
        assert found[name].type == kind
        assert found[name].documentation
        for sample in found[name].samples:
            assert sample.labels.keys() - {"le"} == labels, name


def test_no_sample_is_given_twice(running: World) -> None:
    """Not even of an engine that was built again; Prometheus would take neither of them."""
    samples = [one for family in families(running).values() for one in family.samples]
    assert all(count == 1 for count in Counter(map(_identity, samples)).values())


def _identity(sample: Sample) -> tuple[str, tuple[tuple[str, str], ...]]:
    return sample.name, tuple(sorted(sample.labels.items()))


def test_each_camera_s_counters_add_up(running: World) -> None:
    def settled() -> bool:
        """Whether every decoded frame was tracked, skipped or dropped."""
        found = families(running)
        parts = [values(found[f"sightline_frames_{name}"], "_total")
                 for name in ("tracked", "skipped", "dropped")]  # fmt: skip
        decoded = values(found["sightline_frames_decoded"], "_total")
        return decoded == {name: sum(part[name] for part in parts) for name in NAMES}

    running.wait(settled, "every frame's end")
    found = families(running)
    tracked = values(found["sightline_frames_tracked"], "_total")
    assert min(tracked.values()) > 5
    read = values(found["sightline_packets"], "_total")
    decoded = values(found["sightline_frames_decoded"], "_total")
    undecodable = values(found["sightline_packets_undecodable"], "_total")
    assert read == {name: decoded[name] + undecodable[name] for name in NAMES}


def test_every_tracked_frame_is_in_the_latencies(running: World) -> None:
    tracked = values(families(running)["sightline_frames_tracked"], "_total")
    latencies = families(running)["sightline_latency_seconds"].samples
    for name in NAMES:
        buckets = [
            one.value
            for one in latencies
            if one.name.endswith("_bucket")
            and (one.labels["camera"], one.labels["milestone"]) == (name, "tracked")
        ]
        assert buckets == sorted(buckets)
        assert buckets[-1] == tracked[name]


def test_a_camera_is_in_one_state_and_a_replaced_process_is_counted(running: World) -> None:
    found = families(running)
    assert values(found["sightline_camera_state"]) == dict.fromkeys(NAMES, 1.0)
    replaced = {
        one.labels["group"]: one.value for one in found["sightline_processes_replaced"].samples
    }
    assert replaced == {"trunk": 1.0}


def test_receivers_are_counted_as_they_count_themselves(running: World) -> None:
    def agree() -> bool:
        samples = families(running)["sightline_receiver_sent"].samples
        sent = {one.labels["receiver"]: one.value for one in samples}
        return sent == {"webhook hook": len(running.receiver.requests)}

    running.wait(agree, "the count of the webhook's messages")


def test_one_path_a_camera_is_the_one_that_decodes_it(running: World) -> None:
    decoders = families(running)["sightline_decoder"].samples
    for name in NAMES:
        paths = {one.labels["path"]: one.value for one in decoders if one.labels["camera"] == name}
        assert paths == {"nvdec": 0, "gstreamer-nv": 0, "cpu": 1}
