# SPDX-License-Identifier: Apache-2.0
"""What travels between a box and its collector; the box dials, the collector listens.

    box        Hello                    the first message of a connection
    collector  Welcome                  who the box is by its key, and its credits
    box        Told + event             one message about an event, numbered from 1 in a connection
    collector  Ack                      all up to a number are committed; returns their credits
    collector  Rejected                 one is no event and never will be; returns its credit
    box        Health                   how the box does, every few seconds
    collector  Refused                  the connection is of no use; another may be
    box        Bye

The event rides beside `Told`, as the JSON the box keeps (`pipeline/events.py`), and is kept by the
collector as it came: a field or kind of event that a later version adds passes through an older
collector. At most `credits` are sent and not acknowledged. Who the box is, its key has proved; it
says no name.
"""

from typing import Annotated, Final

import msgspec

FLEET_PROTOCOL: Final = 1
MOST_EVENT_BYTES: Final = 256 << 10
"""Of one event; the largest of ours has a few thousand."""
MOST_PART_BYTES: Final = 320 << 10
"""Of an event or a report with its header."""
MOST_CAMERAS: Final = 256
MOST_TEXT: Final = 300

Text = Annotated[str, msgspec.Meta(max_length=MOST_TEXT)]
Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


class CameraHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How one camera does."""

    state: Text
    reason: Text | None = None
    decoded_fps: float = 0.0
    tracked_fps: float = 0.0
    decoded: Count = 0
    tracked: Count = 0
    dropped: Count = 0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How a box does."""

    at_s: float
    """By the box's own clock, in seconds since 1970."""
    since_s: float
    """When its service began."""
    version: Text
    model: Text
    writable: bool
    """Whether its database can be written."""
    lost: Count = 0
    """Events it never could keep."""
    waiting: Count = 0
    """Messages that wait for the collector."""
    dropped: Count = 0
    """Messages that waited too long for the collector."""
    cameras: Annotated[dict[Text, CameraHealth], msgspec.Meta(max_length=MOST_CAMERAS)]


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The first message of a connection."""

    protocol: int
    version: Text
    """Of Sightline, for people."""


class Told(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A message about an event, which rides beside it."""

    number: Count
    retry: bool


class Health(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """How the box does; the latest counts."""

    report: Report


class Bye(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The box has no more."""


class Welcome(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The collector takes messages."""

    box: str
    """The name of the box, by its key."""
    credits: int


class Ack(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Everything up to a number is committed, or was before."""

    through: int


class Rejected(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A message is no event; those before it are committed."""

    number: int
    reason: str


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The collector takes nothing over this connection."""

    reason: str


FromBox = Hello | Told | Health | Bye
FromCollector = Welcome | Ack | Rejected | Refused

encode = msgspec.msgpack.Encoder().encode
from_box = msgspec.msgpack.Decoder(FromBox).decode
from_collector = msgspec.msgpack.Decoder(FromCollector).decode
encode_report = msgspec.json.Encoder().encode
decode_report = msgspec.json.Decoder(Report).decode
