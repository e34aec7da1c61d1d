# SPDX-License-Identifier: Apache-2.0
"""What branches that are gone have counted, so that a camera's figures never go back."""

from collections import defaultdict
from collections.abc import Mapping

from pipeline.metrics import COUNTERS, Counter, Counters

Counted = Mapping[Counter, int]


class Totals:
    """Counters of gone branches, summed by the name of the camera."""

    def __init__(self) -> None:
        self._gone: defaultdict[str, dict[Counter, int]] = defaultdict(
            lambda: dict.fromkeys(COUNTERS, 0)
        )

    def keep(self, name: str, counters: Counters) -> None:
        """Add what a branch that is gone has counted."""
        self._gone[name] = self.with_living(name, counters)

    def with_living(self, name: str, counters: Counters) -> dict[Counter, int]:
        """What all branches of a camera have counted, the living one among them."""
        before = self._gone.get(name, {})
        sums = {each: before.get(each, 0) + counters[each] for each in COUNTERS}
        sums["identities"] = counters["identities"]  # counted on from one branch to the next
        return sums

    def of(self, name: str) -> Counted:
        """What the gone branches of a camera have counted."""
        return dict(self._gone[name]) if name in self._gone else dict.fromkeys(COUNTERS, 0)

    @property
    def names(self) -> tuple[str, ...]:
        """The cameras that had a branch which is gone."""
        return tuple(self._gone)
