# SPDX-License-Identifier: Apache-2.0
"""The supervisor: starts the stages, watches them, and ends the run in good order.

The failure contract. If the code is at odds with it, the code is wrong.

1.  A source says `Ended` once; every stage passes it on after the last frame and leaves when the
    readers of what it wrote have acknowledged all of it. A stream is over when every stage of its
    branch has reported that it finished.
2.  A stream whose source gave less than it declares, or packets that cannot be decoded, is
    finished like any other, its outputs are kept, and it counts as incomplete.
3.  A stage of a branch that fails ends its stream and no other: the rest of the branch is told to
    leave, sinks keep what they wrote as `*.partial`, and the trunk forgets the stream.
4.  A stage of the trunk that fails ends the run in the same way.
5.  Asked to stop, the supervisor starts no further stream and tells every source to take no more
    input; what was read is worked on to its end, so every output is complete up to there. Asked
    again, it tells every stage to leave at once.
6.  The trunk is told to leave when no stream is left, and the memory is given back last.
"""

import itertools
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import zmq

from pipeline.decoding.inputs import Source
from pipeline.graph import Plan, video_graph
from pipeline.topology import Addresses, Stage
from pipeline.transport.control import (
    AnyCommand,
    AnyReport,
    Close,
    ControlDesk,
    Enough,
    Failed,
    Finished,
    Forget,
    Incomplete,
    Ready,
    Stop,
    StreamFacts,
)
from pipeline.transport.pool import Pools
from pipeline.worker import Surroundings, work, worker_name

logger = logging.getLogger(__name__)

_TICK_MS = 100


@dataclass(slots=True, kw_only=True)
class StreamState:
    """How one stream is doing; written by the supervisor alone."""

    source: Source
    facts: StreamFacts | None = None
    started_s: float | None = None
    ended_s: float | None = None
    complete: bool = True
    reason: str = ""
    """Why it is not complete, for the user."""
    trace: str = ""
    """Where our own code failed, if it did."""
    outputs: list[str] = field(default_factory=list)
    working: set[str] = field(default_factory=set)
    """Workers of the branch that have not ended."""

    @property
    def elapsed_s(self) -> float:
        """Seconds from its start to its end, or to now."""
        if self.started_s is None:
            return 0.0
        return (self.ended_s or time.monotonic()) - self.started_s

    def fail(self, reason: str, trace: str = "") -> None:
        """Note the first thing that went wrong."""
        if self.complete:
            self.complete, self.reason, self.trace = False, reason, trace


class Supervisor:
    """Runs a plan in threads of this process."""

    def __init__(self, plan: Plan, sources: Sequence[Source]) -> None:
        self.streams: Mapping[str, StreamState] = {s.name: StreamState(source=s) for s in sources}
        self.usage: dict[str, Mapping[str, int]] = {}
        """Where the time of each stage went, by worker."""
        self._parallel = plan.config.parallel
        self._counters = plan.counters
        self._graph = video_graph(plan)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._pools = Pools()
        addresses = Addresses(f"inproc://{uuid.uuid4().hex}")
        self._around = Surroundings(self._context, addresses, self._graph, self._pools)
        self._desk = ControlDesk(self._context, addresses.control())
        self._threads: dict[str, threading.Thread] = {}
        self._stream_of: dict[str, str] = {}
        self._unheard: dict[str, list[AnyCommand]] = {}
        """Commands for workers that are not on the line yet."""
        self._stops = itertools.count()
        self._stop_level = 0
        self._stop_done = 0

    def stop(self) -> None:
        """End the run early; twice, at once. May be called from a signal handler."""
        self._stop_level = next(self._stops) + 1

    def run(self, on_tick: Callable[[], None] = lambda: None) -> None:
        """Run every stream to its end; `on_tick` is called about ten times a second.

        How each stream ended stands in `streams`; nothing is raised for a stream's failure.
        """
        waiting = deque(self.streams.values())
        try:
            for stage in self._graph.trunk:
                self._start(stage, "")
            while waiting or self._live_streams():
                self._start_streams(waiting)
                for worker, report in self._reports():
                    self._handle(worker, report)
                self._pass_on_stops(waiting)
                on_tick()
        finally:
            self._leave()

    def _start_streams(self, waiting: deque[StreamState]) -> None:
        """Begin cameras at once, and files while fewer than `parallel` are being read."""
        if self._stop_level:
            return
        for state in tuple(waiting):
            files = sum(not other.source.live for other in self._live_streams())
            if not state.source.live and files >= self._parallel:
                continue
            waiting.remove(state)
            state.started_s = time.monotonic()
            name = state.source.name
            state.working.update(worker_name(stage.name, name) for stage in self._graph.branch)
            for stage in reversed(self._graph.branch):
                self._start(stage, name)

    def _start(self, stage: Stage, stream: str) -> None:
        name = worker_name(stage.name, stream)
        self._stream_of[name] = stream
        self._unheard[name] = []
        thread = threading.Thread(target=work, args=(self._around, stage, stream), name=name)
        self._threads[name] = thread
        thread.start()

    def _reports(self) -> Iterator[tuple[str, AnyReport]]:
        """What was reported within a tick."""
        until = time.monotonic() + _TICK_MS / 1000
        while (left_s := until - time.monotonic()) > 0:
            heard = self._desk.hear(max(1, round(left_s * 1000)))
            if heard is None:
                return
            yield heard
            if isinstance(heard[1], Finished | Failed):
                return

    def _handle(self, worker: str, report: AnyReport) -> None:
        self._note(worker, report)
        stream = self._stream_of[worker]
        if stream:
            self._handle_branch(worker, self.streams[stream], report)
        elif isinstance(report, Failed):
            self._end_run(report)

    def _handle_branch(self, worker: str, state: StreamState, report: AnyReport) -> None:
        match report:
            case StreamFacts():
                state.facts = report
            case Enough():
                self._tell(worker_name("source", state.source.name), Stop())
            case Incomplete(reason=reason):
                state.fail(reason)
            case Failed():
                state.fail(report.message, report.trace)
                self._end_stream(state)
            case Finished(outputs=outputs):
                state.outputs.extend(outputs)
        if isinstance(report, Finished | Failed):
            state.working.discard(worker)
            if not state.working:
                self._close_stream(state)

    def _note(self, worker: str, report: AnyReport) -> None:
        """Keep track of who is there."""
        if isinstance(report, Ready):
            for command in self._unheard.pop(worker):
                self._desk.tell(worker, command)
        if isinstance(report, Finished):
            self.usage[worker] = report.usage
        if isinstance(report, Finished | Failed):
            self._unheard.pop(worker, None)
            self._threads.pop(worker).join()

    def _close_stream(self, state: StreamState) -> None:
        """The branch is gone: the trunk may forget it, its memory goes back."""
        state.ended_s = time.monotonic()
        counters = self._counters[state.source.name]
        counters.add(
            "dropped_shutdown" if self._stop_level > 1 else "dropped_stage_died",
            counters.num_in_flight,
        )
        for stage in self._graph.trunk:
            self._tell(stage.name, Forget(stream=state.source.name))
        self._pools.discard(f"{state.source.name}/")

    def _end_stream(self, state: StreamState) -> None:
        """Tell the rest of a branch to leave."""
        for worker in state.working:
            self._tell(worker, Close())

    def _end_run(self, failed: Failed) -> None:
        for state in self.streams.values():
            if state.ended_s is None:
                state.fail(failed.message, failed.trace)
                self._end_stream(state)
        self._stop_level = max(self._stop_level, 1)

    def _pass_on_stops(self, waiting: deque[StreamState]) -> None:
        if self._stop_done == self._stop_level:
            return
        self._stop_done = self._stop_level
        while waiting:
            waiting.popleft().fail("not started")
        for state in self._live_streams():
            if self._stop_level == 1:
                self._tell(worker_name("source", state.source.name), Stop())
            else:
                state.fail("ended at once")
                self._end_stream(state)

    def _live_streams(self) -> list[StreamState]:
        return [state for state in self.streams.values() if state.working]

    def _tell(self, worker: str, command: AnyCommand) -> None:
        if worker in self._unheard:
            self._unheard[worker].append(command)
        elif worker in self._threads:
            self._desk.tell(worker, command)

    def _leave(self) -> None:
        """End what still runs, then give back sockets and memory."""
        for worker in tuple(self._threads):
            self._tell(worker, Close())
        while self._threads:
            if (heard := self._desk.hear(_TICK_MS)) is not None:
                self._note(*heard)
        self._desk.close()
        self._context.term()
        self._pools.close()
