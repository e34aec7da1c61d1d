# SPDX-License-Identifier: Apache-2.0
"""Stages of branches that work in the process of their trunk, and what its death asks for.

A decoder cannot go on without the packets it had: so its reader is ended too, and both begin anew
where the stream's checkpoint says.
"""

from pipeline.crew import Crew
from pipeline.host import worker_name
from pipeline.streams import StreamState

_READERS = "read"


class Hosted:
    """Follows them; used by the supervisor's thread."""

    def __init__(self, crew: Crew) -> None:
        self.begin_anew = (*crew.graph.hosted, _READERS)
        """The groups that begin together, the readers of links first."""
        self._crew = crew
        self._graph = crew.graph
        self._orphans: set[str] = set()
        """Streams whose decoders are dead, and whose readers are to end for it."""

    def lose(self, state: StreamState) -> set[str]:
        """Have the reader end of a stream whose trunk died; who died with it."""
        lost = {worker for group in self._graph.hosted for worker in self._at_work(group, state)}
        if lost and not state.closing:
            self._orphans.add(state.branch.stream)
            for worker in self._at_work(_READERS, state):
                self._crew.give_up(worker, "its decoder died with the trunk")
        return lost

    def is_orphan(self, state: StreamState) -> bool:
        """Whether a stream's decoder is dead, and not begun anew."""
        return state.branch.stream in self._orphans

    def may_begin(self, state: StreamState) -> bool:
        """Whether the decoder of an orphan may begin anew: its reader has ended."""
        return self.is_orphan(state) and not state.closing and not self._at_work(_READERS, state)

    def have_all(self, state: StreamState) -> bool:
        """Whether hosted stages have ended, so that nobody need read for them."""
        hosted = self._graph.hosted
        return bool(hosted) and not any(self._at_work(group, state) for group in hosted)

    def forget(self, stream: str) -> None:
        """Hear that a stream has begun anew, or is gone."""
        self._orphans.discard(stream)

    def _at_work(self, group: str, state: StreamState) -> set[str]:
        """Those of a group of a branch that have not ended."""
        names = {worker_name(stage.name, state.branch.stream) for stage in self._graph.group(group)}
        return names & state.working
