from typing import Any, get_args

import msgspec
import pytest

from model.cuda.coded import Coded
from model.slicing import Region
from pipeline.messages import (
    AnyMessage,
    CodecParameters,
    Drawn,
    DropCause,
    Dropped,
    Ended,
    Found,
    Frame,
    Opened,
    Packet,
    Part,
    Picture,
    Predictions,
    Slot,
    Tracked,
    pack,
    timing,
    unpack,
)

PLACE: dict[str, Any] = {"stream": "hof-süd", "frame_index": 2**40}
TIMES: dict[str, Any] = {
    **PLACE,
    "pts_ns": -40_000_000,
    "duration_ns": 40_000_000,
    "captured_ns": 2**62,
    "discontinuity": True,
}
SLOT = Slot(pool="hof-süd/images", index=3, generation=2**40, shape=(2, 384, 640, 3))
REGIONS = (Region(0, 0, 1920, 1080), Region(852, 480, 1068, 600))
PART = Part(picture_hw=(1080, 1920), origin_xy=(4, 8))
CODED = Coded(
    pixel_format="nv12",
    coded_hw=(1080, 1920),
    offsets=(0, 2073600),
    pitches=(1920, 1920),
    matrix="bt709",
    full_range=False,
    quarter_turns=1,
    upright_hw=(1920, 1080),
    num_bytes=3110400,
)
PARAMETERS = CodecParameters(
    codec="h264",
    width=1920,
    height=1080,
    pixel_format="yuv420p",
    codec_tag="avc1",
    bits_per_coded_sample=24,
    color_space=1,
    color_range=2,
    reorder_frames=2,
    extradata=bytes(range(256)),
    rotation_deg=-90,
)
MESSAGES: list[AnyMessage] = [
    Opened(**PLACE, parameters=PARAMETERS, frame_rate=29.97),
    Packet(
        **PLACE, pts_ns=None, dts_ns=-1, keyframe=True, hidden=True, corrupt=True, captured_ns=7
    ),
    Frame(
        **TIMES,
        image=SLOT,
        canvas_hw=(384, 640),
        coded=CODED,
        source_hw=(1080, 1920),
        regions=REGIONS,
        part=PART,
    ),
    Picture(**TIMES, picture=SLOT, picture_hw=(1079, 1919), matrix="bt709"),
    Predictions(**TIMES, rows=SLOT, canvas_hw=(384, 640), regions=REGIONS, part=PART),
    Found(**TIMES, part=PART),
    Tracked(**TIMES, picture_hw=(1080, 1920), predicted=True),
    Drawn(**TIMES, picture=SLOT, picture_hw=(1079, 1919), matrix="bt601"),
    Dropped(**TIMES, cause="gate", source_hw=(1080, 1920)),
    Ended(**PLACE, complete=False, reason="cut off"),
]


def test_the_table_has_every_type() -> None:
    assert {type(message) for message in MESSAGES} == set(get_args(AnyMessage))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_arrives_as_it_was_sent(message: AnyMessage) -> None:
    arrived = unpack(memoryview(pack(message)))
    assert arrived == message
    assert type(arrived) is type(message)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_never_changes(message: AnyMessage) -> None:
    with pytest.raises(AttributeError):
        message.stream = "other"  # type: ignore[misc]


@pytest.mark.parametrize("cause", get_args(DropCause))
def test_a_tombstone_has_a_cause(cause: DropCause) -> None:
    assert unpack(pack(Dropped(**TIMES, cause=cause))) == Dropped(**TIMES, cause=cause)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\xff noise",
        pack(Found(**TIMES, part=PART))[:-3],
        msgspec.msgpack.encode({"type": "Rumour", **PLACE}),
        msgspec.msgpack.encode({"type": "Ended", **PLACE}),
        msgspec.msgpack.encode({"type": "Dropped", **TIMES, "cause": "boredom"}),
        msgspec.msgpack.encode({"type": "Found", **TIMES, "pts_ns": "soon"}),
    ],
    ids=["empty", "noise", "cut", "unknown", "lacks-a-field", "unknown-cause", "wrong-type"],
)
def test_what_is_no_message_of_ours_is_refused(header: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        unpack(header)


def test_later_messages_about_a_frame_repeat_its_place_and_clocks() -> None:
    frame = Frame(
        **TIMES, image=SLOT, canvas_hw=(32, 32), source_hw=(1, 1), regions=REGIONS, part=PART
    )
    assert timing(frame) == TIMES
    assert timing(Tracked(**timing(frame), picture_hw=(1, 1))) == TIMES
