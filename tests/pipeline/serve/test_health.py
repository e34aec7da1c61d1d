# SPDX-License-Identifier: Apache-2.0
"""What of a service's status its fleet is told."""

from typing import Any, get_args

from pipeline.metrics import Counter
from pipeline.serve.health import report_of
from pipeline.transport.fleetwire import MOST_CAMERAS, MOST_TEXT, Health, encode, from_box


def make_status(num_cameras: int = 1, reason: str | None = None) -> dict[str, Any]:
    counters = dict.fromkeys(get_args(Counter), 0) | {"decoded": 9, "dropped_late": 2}
    camera = {
        "source": "rtsp://192.0.2.1/hidden", "state": "retrying", "reason": reason,
        "decoded_fps": 9.5, "tracked_fps": 8.5, "counters": counters,
    }  # fmt: skip
    return {
        "since": 3.0,
        "model": {"weights": "/etc/hidden/t.safetensors"},
        "cameras": {f"camera-{number}": camera for number in range(num_cameras)},
        "events": {
            "writable": True,
            "lost": 1,
            "receivers": {"fleet": {"waiting": 4, "dropped": 5}},
        },
    }


def test_a_report_has_cameras_and_counters_and_no_address_or_path() -> None:
    report = report_of(make_status(reason="rtsp://192.0.2.1/hidden: no route"))
    camera = report.cameras["camera-0"]
    assert (camera.state, camera.reason, camera.decoded, camera.dropped) == (
        "retrying", "its source: no route", 9, 2,
    )  # fmt: skip
    assert (report.lost, report.waiting, report.dropped, report.model) == (1, 4, 5, "t.safetensors")
    assert b"hidden" not in encode(Health(report=report))


def test_a_report_of_any_machine_is_one_the_collector_takes() -> None:
    report = report_of(make_status(MOST_CAMERAS + 1, "x" * (MOST_TEXT + 1)))
    assert from_box(encode(Health(report=report))) == Health(report=report)
