# SPDX-License-Identifier: Apache-2.0
"""A yes or no that does not flicker: what is shown counts once it has been shown for a while."""

from dataclasses import dataclass

from pipeline.rules.scene import Scene


@dataclass(frozen=True, slots=True)
class Patience:
    """For how many frames in a row, and how long, a change has to be shown."""

    frames: int
    for_s: float


@dataclass(slots=True)
class Settled:
    """What is so, and since when; None until something has settled."""

    value: bool | None = None
    since_s: float = 0.0
    """By the steady clock, when it was first shown."""
    last_s: float = 0.0
    """When it was last shown."""
    _shown: bool | None = None
    """What is shown instead, for so many frames since then."""
    _frames: int = 0
    _first_s: float = 0.0

    def show(self, shown: bool, scene: Scene, patience: Patience) -> bool:  # noqa: FBT001 - the value itself
        """Take in what one frame shows; return whether that changed the value."""
        if shown == self.value:
            self._shown = None
            self.last_s = scene.now_s
            return False
        if shown != self._shown:
            self._shown, self._frames = shown, 0
            self._first_s = scene.now_s
        self._frames += not scene.predicted
        if self._frames < patience.frames or scene.now_s - self._first_s < patience.for_s:
            return False
        self.settle(shown, self._first_s, scene.now_s)
        return True

    def settle(self, value: bool, since_s: float, last_s: float) -> None:  # noqa: FBT001 - as above
        """Make it so without waiting."""
        self.value, self.since_s, self.last_s = value, since_s, last_s
        self._shown = None
