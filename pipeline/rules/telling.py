# SPDX-License-Identifier: Apache-2.0
"""What is told outside: the events that begin, go on and end, and the pictures they want."""

from dataclasses import dataclass

from pipeline.events import Event, Subject


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureWanted:
    """This frame shows an event best so far: whoever keeps pictures takes it now.

    The next message of the event has this subject. The picture replaces the one before.
    """

    event_id: str
    rule: str
    subject: Subject | None
    """What the picture is of; None for all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What one frame gave."""

    events: tuple[Event, ...] = ()
    pictures: tuple[PictureWanted, ...] = ()
