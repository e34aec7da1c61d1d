# SPDX-License-Identifier: Apache-2.0
"""What one round of the collector has taken and is to commit."""

from dataclasses import dataclass, field

import msgspec

from pipeline.fleet.database import Head, Message
from pipeline.transport.fleetwire import MOST_EVENT_BYTES, Rejected

_MOST_ID = 64
_MOST_NAME = 300


@dataclass(slots=True, kw_only=True)
class Peer:
    """One connection of a box."""

    identity: bytes
    name: str
    taken: int = 0
    """Number of the last message that came."""


@dataclass(slots=True)
class Batch:
    """Messages of several boxes, in the order they came."""

    messages: list[Message] = field(default_factory=list)
    reports: dict[str, bytes] = field(default_factory=dict)
    """The latest of each box."""
    taken: dict[bytes, int] = field(default_factory=dict)
    """By connection, the number up to which all is in here or rejected."""
    rejected: list[tuple[bytes, Rejected]] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return not (self.messages or self.reports or self.rejected)

    def add(self, peer: Peer, message: Message) -> None:
        """Have a message kept."""
        self.messages.append(message)
        self.taken[peer.identity] = peer.taken

    def reject(self, peer: Peer, number: int, reason: str) -> None:
        """Have a message refused once those before it are kept."""
        self.rejected.append((peer.identity, Rejected(number=number, reason=reason)))
        self.taken[peer.identity] = peer.taken


def read_event(box: str, body: bytes) -> Message:
    """An event as it came.

    Raises:
        msgspec.MsgspecError, ValueError, RecursionError: it is none.
    """
    if len(body) > MOST_EVENT_BYTES:
        raise ValueError(f"{len(body)} bytes, of {MOST_EVENT_BYTES} at most")
    head = msgspec.convert(msgspec.json.decode(body), Head)
    sizes = (len(head.id.encode()), len(head.camera.encode()), len(head.kind.encode()))
    if not 0 < sizes[0] <= _MOST_ID or max(sizes[1:]) > _MOST_NAME:
        raise ValueError("its id, camera or kind is too long or missing")
    if not 0 <= head.revision < 1 << 31:
        raise ValueError(f"revision {head.revision}")
    return Message(box=box, head=head, body=body)
