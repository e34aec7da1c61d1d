"""How frames that the detector was not asked for get their tracks."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from model.detections import Detections
from pipeline.columns import detections_to_buffers, tracks_from_buffers
from pipeline.messages import AnyMessage, DropCause, Dropped, Ended, Found, Part, Tracked
from pipeline.metrics import Counters, CounterTable
from pipeline.stages.track import Track
from pipeline.tracking.thresholds import Thresholds
from pipeline.tracking.tracker import make_tracker
from pipeline.tracking.wanted import Wanted

STEP_NS = 40_000_000
ALL = Wanted(class_ids=None, thresholds=Thresholds(0.25), weak_score=0.1)
SIZE_HW = (480, 640)


class Wire:
    """Stands for the ports: gives what it was made with, keeps what it is sent."""

    def __init__(self, messages: Sequence[tuple[AnyMessage, Any]]) -> None:
        self._messages = iter(messages)
        self.sent: list[tuple[AnyMessage, Any]] = []

    def receive(self, _: str) -> "Came":
        return Came(*next(self._messages))

    def send(self, _: str, message: AnyMessage, buffers: Any = ()) -> None:
        self.sent.append((message, buffers))

    def drain(self) -> None:
        pass


class Came:
    """A delivery."""

    def __init__(self, message: AnyMessage, buffers: Any) -> None:
        self.message, self.buffers = message, buffers

    def acknowledge(self) -> None:
        pass


def times(index: int) -> dict[str, Any]:
    return {
        "stream": "yard",
        "frame_index": index,
        "pts_ns": index * STEP_NS,
        "duration_ns": STEP_NS,
        "captured_ns": 0,
    }


def seen(index: int, *lefts: float, **more: Any) -> tuple[Found, Any]:
    left = np.array(lefts, np.float32)
    found = Detections(
        xyxy=np.stack((left, left * 0 + 100, left + 40, left * 0 + 180), axis=1),
        score=np.full(len(left), 0.9, np.float32),
        class_id=np.zeros(len(left), np.int64),
    )
    return Found(**times(index), part=Part(picture_hw=SIZE_HW), **more), [
        bytes(part) for part in detections_to_buffers(found)
    ]


def unseen(index: int, cause: DropCause, **more: Any) -> tuple[Dropped, Any]:
    return Dropped(**times(index), cause=cause, source_hw=SIZE_HW, **more), ()


def track(
    *messages: tuple[AnyMessage, Any], wanted: Wanted = ALL
) -> tuple[list[list[float] | None], Counters]:
    """The left sides each frame was given, None where it has no tracks; and the counts."""
    counters = CounterTable(["yard"])["yard"]
    ended = Ended(stream="yard", frame_index=len(messages), complete=True)
    wire = Wire([*messages, (ended, ())])

    def make(frame_rate: float, num_identities: int) -> Any:
        return make_tracker(
            "bytetrack", min_score=0.25, frame_rate=frame_rate, num_identities=num_identities
        )

    Track(make, counters, wanted).run(wire)  # type: ignore[arg-type]
    lefts: list[list[float] | None] = []
    for (came, _), (message, buffers) in zip(messages, wire.sent, strict=False):
        if isinstance(message, Tracked):
            assert message.predicted == isinstance(came, Dropped)
            lefts.append(tracks_from_buffers(buffers).xyxy[:, 0].round(1).tolist())
        else:
            lefts.append(None)
    counters.put("decoded", len(messages))
    assert counters.num_in_flight == 0
    return lefts, counters


WALK = [seen(index, 100 + 10.0 * index) for index in range(10)]


def test_behind_the_gate_boxes_stay_and_between_detections_they_go_on() -> None:
    lefts, counters = track(*WALK, unseen(10, "gate"), unseen(11, "gate"))
    assert lefts[9:] == [[190.0]] * 3
    assert counters["skipped_gate"] == 2
    lefts, counters = track(*WALK, unseen(10, "detect-every"), unseen(11, "detect-every"))
    assert lefts[10:] == [pytest.approx([200], abs=1), pytest.approx([210], abs=2)]
    assert counters["skipped_detect_every"] == 2
    assert counters["tracked"] == 10


def test_what_rests_behind_the_gate_keeps_its_track_for_longer_than_a_lost_one() -> None:
    still = [unseen(index, "gate") for index in range(10, 110)]
    lefts, counters = track(*WALK, *still, seen(110, 190))
    assert lefts[10:] == [[190.0]] * 101
    assert counters["identities"] == 1


def test_a_loss_ends_what_the_gate_holds() -> None:
    for cause in ("late", "overload", "corrupt", "stage-died"):
        lefts, _ = track(*WALK, unseen(10, cause), unseen(11, "gate"))
        assert lefts[10] is None
        assert lefts[11] == pytest.approx([210], abs=2)


def test_a_stride_does_not_end_what_the_gate_holds() -> None:
    assert track(*WALK, unseen(10, "stride"), unseen(11, "gate"))[0][10:] == [None, [190.0]]


@pytest.mark.parametrize("cause", ["gate", "detect-every"])
def test_after_a_discontinuity_nothing_is_carried_over(cause: DropCause) -> None:
    broken = unseen(10, cause, discontinuity=True)
    lefts, counters = track(*WALK, broken, unseen(11, cause), seen(12, 300), unseen(13, cause))
    assert lefts[10:] == [[], [], [300.0], [300.0]]
    assert counters["identities"] == 2


@pytest.mark.parametrize("cause", ["gate", "detect-every"])
def test_before_the_first_detection_there_is_nothing_to_carry_over(cause: DropCause) -> None:
    lefts, counters = track(unseen(0, cause), seen(1, 100), unseen(2, cause))
    assert lefts == [[], [100.0], [100.0]]
    assert counters["tracked"] == 1


def test_what_was_found_in_a_part_lies_in_the_whole_picture() -> None:
    part = Part(picture_hw=SIZE_HW, origin_xy=(200, 40))
    found, boxes = seen(0, 100)
    lefts, _ = track((msgspec.structs.replace(found, part=part), boxes))
    assert lefts == [[300.0]]


def test_boxes_that_are_not_wanted_are_not_tracked() -> None:
    left_half = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))
    wanted = replace(ALL, ignore=(left_half,))
    assert track(seen(0, 100, 400), wanted=wanted)[0] == [[400.0]]
    assert track(seen(0, 100, 400), wanted=replace(ALL, class_ids=(1,)))[0] == [[]]


def test_a_frame_left_out_for_the_rate_has_no_tracks_and_is_counted() -> None:
    lefts, counters = track(*WALK, unseen(10, "max-fps"), unseen(11, "gate"))
    assert lefts[10:] == [None, [190.0]]
    assert counters["skipped_max_fps"] == 1
