# SPDX-License-Identifier: Apache-2.0
"""What travels between hosts: pictures there, boxes back, and no more than that.

The far side learns what it must to find boxes: pixels, the size of the source, the settings of
suppression, and until when the answer is of use. It never learns the name of a camera. An answer
returns the credit of its picture; a client sends again what has no answer, so nothing else is
acknowledged.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Any

import msgspec

from model.card import read_card
from model.errors import WeightsError
from model.slicing import MOST_LOOKS, Region
from pipeline.transport.control import EngineBuilt

PROTOCOL = 2
BEAT_S = 0.5
"""How often a worker shows its clients that it lives."""
MOST_STREAMS = 256
"""Streams the worker tells apart, to serve them in turn."""
SLACK_BYTES = 1 << 16
"""What a header and encryption may add to the pixels."""


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What must be the same at both ends, or the boxes would not be."""

    scale: Annotated[str, msgspec.Meta(pattern=r"^\w{1,8}$")]
    num_classes: int
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
    """Of the whole weights file."""

    def __str__(self) -> str:
        return f"{self.scale} with {self.num_classes} classes, sha256 {self.sha256[:12]}"


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The first message of a connection."""

    protocol: int
    run: Annotated[str, msgspec.Meta(max_length=64)]
    """Names the client's run, so that its next connection takes the place of a lost one."""
    model: ModelFacts
    suppression: dict[str, Any]
    class_ids: tuple[int, ...] | None


class Look(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A picture to find boxes in; its pixels ride beside the header."""

    number: int
    stream: Annotated[int, msgspec.Meta(ge=0, lt=MOST_STREAMS)]
    shape: tuple[int, int, int, int]
    """Looks, height, width, channels."""
    source_hw: tuple[int, int]
    regions: Annotated[tuple[Region, ...], msgspec.Meta(min_length=1, max_length=MOST_LOOKS)]
    """What each look shows; the first is the whole picture."""
    fresh_ns: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)] | None
    """For how long the answer is of use; None for ever."""


class Bye(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The client has no more."""


class Welcome(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The worker looks at `credits` pictures of `frame_bytes` at most at a time."""

    credits: int
    frame_bytes: int


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The worker does not work for this client."""

    reason: str
    again: bool
    """Whether it may later."""


class Seen(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The answer to a picture; xyxy, score and class_id ride beside the header."""

    number: int


class Late(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The answer to a picture that was not looked at, since it was no longer of use."""

    number: int


class Alive(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The worker lives."""


FromClient = Hello | Look | Bye
FromWorker = Welcome | Refused | Seen | Late | EngineBuilt | Alive

encode = msgspec.msgpack.Encoder().encode
from_client = msgspec.msgpack.Decoder(FromClient).decode
from_worker = msgspec.msgpack.Decoder(FromWorker).decode


def model_facts(weights: Path) -> ModelFacts:
    """What a weights file is.

    Raises:
        WeightsError: it cannot be read.
    """
    card = read_card(weights)
    try:
        with weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{weights}: cannot read these weights: {error.strerror}") from None
    return ModelFacts(scale=card.scale, num_classes=len(card.classes), sha256=digest)
