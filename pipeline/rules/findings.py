# SPDX-License-Identifier: Apache-2.0
"""What a rule finds in one frame, before it is decided whether that is told."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from pipeline.rules.objects import Known
from pipeline.rules.scene import Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Something that is so in this frame; an event lasts for as long as its key is held."""

    key: int
    reason: str
    since_s: float
    """By the steady clock, as is `last_s`."""
    last_s: float
    """When it was last seen to be so."""
    may_start: bool
    """Whether an event may begin with this frame."""
    about: Known | None = None
    count: int | None = None
    better: bool = False
    """Whether the whole picture shows it better than before, where it is about no single object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """Something that happened between the last frame and this one."""

    reason: str
    about: Known
    direction: str | None = None
    count: int | None = None


class Watch(Protocol):
    """Looks for one rule's matter, frame by frame."""

    def look(self, scene: Scene) -> Iterable[Held | Happened]:
        """Take in a frame and say what is so."""
        ...

    def reset(self) -> None:
        """Forget what depends on the objects' identities, which all change."""
        ...
