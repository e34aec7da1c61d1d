# SPDX-License-Identifier: Apache-2.0
"""The branches there are, begun or waiting, and what those that are gone have counted.

Used by the supervisor's thread; `streams` and `counted` may be read by any.
"""

from collections import defaultdict, deque
from collections.abc import Mapping

from pipeline.branch import Branch
from pipeline.decoding.inputs import Source
from pipeline.metrics import CounterTable
from pipeline.streams import StreamState
from pipeline.totals import Counted, Totals


class Branches:
    """Every branch that has a row of counters."""

    def __init__(self, counters: CounterTable) -> None:
        self.streams: Mapping[str, StreamState] = {}
        """The last branch of each stream, by the name its user gave it; never changed, only
        replaced."""
        self.waiting: deque[StreamState] = deque()
        """Those that have not begun."""
        self._counters = counters
        self._totals = Totals()
        self._states: dict[str, StreamState] = {}
        self._num_branches: defaultdict[str, int] = defaultdict(int)
        """How many each stream had."""

    def find(self, stream: str) -> StreamState | None:
        """A branch by what it is called; none where there is no such branch."""
        return self._states.get(stream)

    @property
    def working(self) -> list[StreamState]:
        """Those with workers that have not ended."""
        return [state for state in self._states.values() if state.working]

    def enrol(self, source: Source) -> None:
        """Have a branch wait to begin, where there is a row for its counters."""
        if not self._counters.has_room:
            return
        name = source.name
        self._num_branches[name] += 1
        number = self._num_branches[name]
        stream = name if number == 1 else f"{name}@{number}"
        branch = Branch(stream=stream, source=source, row=self._counters.claim(stream))
        state = StreamState(branch=branch, counters=self._counters.at(branch.row))
        state.counters.put("identities", self._totals.of(name)["identities"])
        self._states[stream] = state
        self.streams = {**self.streams, name: state}
        self.waiting.append(state)

    def retire(self, state: StreamState) -> None:
        """Keep of a branch that is gone, or never began, what it has counted and nothing else."""
        if state in self.waiting:
            self.waiting.remove(state)
        state.counters = state.counters.copy()
        self._totals.keep(state.source.name, state.counters)
        self.streams = {key: kept for key, kept in self.streams.items() if kept is not state}
        del self._states[state.branch.stream]
        self._counters.release(state.branch.stream)

    def counted(self) -> Mapping[str, Counted]:
        """What every stream there is or was has counted, over all its branches."""
        counted = {name: self._totals.of(name) for name in self._totals.names}
        for name, state in self.streams.items():
            counted[name] = self._totals.with_living(name, state.counters)
        return counted
