# SPDX-License-Identifier: Apache-2.0
"""What trunks and branches are told of each other: who is new, who is elsewhere, who is gone."""

from dataclasses import replace

from pipeline.branches import Branches
from pipeline.crew import Crew
from pipeline.host import worker_name
from pipeline.streams import StreamState
from pipeline.topology import Stage
from pipeline.transport.control import AnyCommand, Close, Forget, Reconnect


class Wiring:
    """Speaks to the ends of the links between them; used by the supervisor's thread."""

    def __init__(self, crew: Crew, branches: Branches) -> None:
        self._crew = crew
        self._graph = crew.graph
        self._branches = branches

    def tell_trunk(self, number: int, command: AnyCommand) -> None:
        """Tell every stage of a trunk something."""
        for stage in self._graph.trunk:
            self._crew.tell(worker_name(stage.name, trunk=number), command)

    def forget(self, state: StreamState) -> None:
        """Have the trunk take what it sends to this stream as acknowledged from here on."""
        self.tell_trunk(state.branch.trunk, Forget(stream=state.branch.stream))

    def introduce(self, stage: Stage, state: StreamState | None, trunk: int) -> None:
        """Turn the writers of what a stage reads to the worker that is new in its place."""
        stream = state.branch.stream if state else ""
        for link in stage.reads:
            writer = self._graph.writer(link)
            if writer.group == stage.group:
                continue  # it is as new, and connected to no other
            address = self._crew.address(link, stage, stream, trunk)
            for worker in self._writers(writer, state, trunk):
                self._crew.tell(worker, Reconnect(address=address, to=address))

    def close_writers(self, stage: Stage, state: StreamState) -> None:
        """Tell who writes to a stage of a branch that it has ended."""
        for link in stage.reads:
            writer = worker_name(self._graph.writer(link).name, state.branch.stream)
            self._crew.tell(writer, Close())

    def move(self, state: StreamState, trunk: int) -> None:
        """Turn a stream from a trunk that is gone to another."""
        places = (state.branch.trunk, trunk)
        state.branch = replace(state.branch, trunk=trunk)
        for stage in self._graph.trunk:
            for link in stage.reads:
                writer = self._graph.writer(link)
                if writer in self._graph.branch:
                    before, after = (self._crew.address(link, stage, "", at) for at in places)
                    worker = worker_name(writer.name, state.branch.stream)
                    self._crew.tell(worker, Reconnect(address=before, to=after))

    def _writers(self, writer: Stage, state: StreamState | None, trunk: int) -> list[str]:
        """The workers that write to a branch, or to a trunk."""
        if writer in self._graph.trunk:
            return [worker_name(writer.name, trunk=trunk)]
        at_trunk = [s for s in self._branches.working if s.branch.trunk == trunk]
        states = at_trunk if state is None else [state]
        return [worker_name(writer.name, each.branch.stream) for each in states]
