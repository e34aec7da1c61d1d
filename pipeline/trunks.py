# SPDX-License-Identifier: Apache-2.0
"""Which trunks there are, and which of them a stream is given to.

It is the one that has the fewest streams of its kind, cameras or files, and of those the one that
has the fewest in all. Nothing better is known when a stream begins: its size and its rate are
learnt when it is opened, and a file has no rate but the one it is looked at with.

Used by the supervisor's thread; `states` may be read by any.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.decoding.inputs import Source
from pipeline.models import ModelInUse
from pipeline.streams import StreamState
from pipeline.trunk import Trunk


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceState:
    """How an accelerator is doing."""

    device: int
    streams: tuple[str, ...]
    """Those that are looked at there, by the names their users gave them."""
    fault: str
    """Why it was given up; empty where it was not."""


class Trunks:
    """One for each accelerator, until it is given up."""

    def __init__(self, devices: Sequence[int]) -> None:
        self._devices = tuple(devices)
        self._faults: Mapping[int, str] = {}
        """Why a trunk was given up; never changed, only replaced."""

    @property
    def working(self) -> tuple[int, ...]:
        """The numbers of those that were not given up."""
        return tuple(n for n in range(len(self._devices)) if n not in self._faults)

    def device(self, number: int) -> int:
        """The accelerator that a trunk is on."""
        return self._devices[number]

    def errand(self, number: int, model: ModelInUse) -> Trunk:
        """What a trunk is told when it begins."""
        return Trunk(number=number, device=self._devices[number], model=model)

    def named(self, number: int, text: str) -> str:
        """What is said of a trunk, led by its device where there are several."""
        return text if len(self._devices) == 1 else f"device {self._devices[number]}: {text}"

    def give_up(self, number: int, fault: str) -> None:
        """Have no stream go there any more."""
        self._faults = {**self._faults, number: fault}

    def least_busy(self, source: Source, streams: Iterable[StreamState]) -> int:
        """The one a stream is given to, where these have begun and not ended."""
        kinds = Counter((state.branch.trunk, state.source.live) for state in streams)

        def load(number: int) -> tuple[int, int]:
            same, others = kinds[number, source.live], kinds[number, not source.live]
            return same, same + others

        return min(self.working, key=load)

    def states(self, streams: Iterable[StreamState]) -> tuple[DeviceState, ...]:
        """How each is doing, in the order of the settings."""
        at = [(state.branch.trunk, state.source.name) for state in streams if state.is_running]
        return tuple(
            DeviceState(
                device=device,
                streams=tuple(name for trunk, name in at if trunk == number),
                fault=self._faults.get(number, ""),
            )
            for number, device in enumerate(self._devices)
        )

    @property
    def lost(self) -> frozenset[int]:
        """The devices that were given up; for any thread."""
        return frozenset(self._devices[number] for number in self._faults)
