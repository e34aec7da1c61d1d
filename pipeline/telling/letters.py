# SPDX-License-Identifier: Apache-2.0
"""What receivers are given, and what they answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from pipeline.events import Event

VERSION: Final = 1
"""Of the messages that webhooks, MQTT, JSON lines and PUB carry."""
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)
Key = tuple[str, int]
"""Id and revision: the name of a message."""


def encode_event(event: Event) -> bytes:
    """The event as it is kept."""
    return _encoder.encode(event)


def decode_event(body: bytes) -> Event:
    """The event that was kept."""
    return _decoder.decode(body)


class _Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """What everyone is sent: `{version, retry, event}`."""

    version: int = VERSION
    retry: bool
    event: msgspec.Raw


def envelope(body: bytes, *, retry: bool) -> bytes:
    """The message about an event.

    Args:
        body: The event as it is kept.
        retry: Whether the receiver may have had it before.
    """
    return _encoder.encode(_Envelope(retry=retry, event=msgspec.Raw(body)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One message to one receiver."""

    key: Key
    body: bytes
    retry: bool = False

    @property
    def text(self) -> bytes:
        """What is sent."""
        return envelope(self.body, retry=self.retry)

    @property
    def event(self) -> Event:
        """What it is about."""
        return decode_event(self.body)


class Unreachable(Exception):  # noqa: N818 - it says what is so
    """A receiver does not take messages now: try again later."""

    def __init__(self, reason: str, *, num_done: int = 0, after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.num_done = num_done
        """How many letters it did take."""
        self.after_s = after_s
        """How long it wants to be left alone."""


class Refused(Exception):  # noqa: N818 - it says what happened
    """A receiver does not want the letter after `num_done`, and will not later."""

    def __init__(self, reason: str, *, num_done: int = 0) -> None:
        super().__init__(reason)
        self.num_done = num_done


class Receiver(Protocol):
    """Someone who is told; used by one thread. No reason it gives holds a secret."""

    name: str
    window: int
    """Letters it takes at once."""

    @property
    def connected(self) -> bool:
        """Whether the last attempt went well, or the connection stands."""
        ...

    def ready(self) -> None:
        """Connect where that is needed; called about once a second.

        Raises:
            Unreachable: it cannot be.
        """
        ...

    def send(self, letters: Sequence[Letter]) -> None:
        """Return once the receiver has confirmed all of them.

        Raises:
            Unreachable: it has not.
            Refused: it does not want one of them.
        """
        ...

    def close(self) -> None:
        """Leave."""
        ...
