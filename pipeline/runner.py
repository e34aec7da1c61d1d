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

Where stages run in processes, a process may die without a word, or hang:

7.  Its end is seen when its socket closes. A process that is silent, or at one piece of work, for
    longer than `supervision.hang_s` is killed and counts as dead.
8.  The trunk is replaced, and every decoder sends again what has no tracks yet: the tracks are
    the same.
9.  The reader of a file (source and decoder) is replaced; it decodes again from a keyframe before
    the first frame without tracks and sends no frame twice: the tracks are the same. The reader of
    a camera is replaced too; the frames it had decoded and that have no tracks yet count as
    `stage-died`, and the tracker begins anew.
10. The tracker of a camera is replaced and begins anew, with identities that were not given
    before. Without the tracker of a file, or the sinks of any stream, that stream has failed as
    in 3.
11. A group of stages that dies `supervision.restarts` times in `supervision.restart_window_s` is
    not replaced any more: a branch then fails as in 3, the trunk as in 4.
12. When the supervisor itself dies, every process ends, and with the last of them the memory;
    nothing has a name in the file system.
"""

import itertools
import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.crew import Crew, Death
from pipeline.decoding.inputs import Source
from pipeline.graph import Plan
from pipeline.host import worker_name
from pipeline.metrics import CounterTable
from pipeline.topology import Stage
from pipeline.transport.control import (
    AnyReport,
    Checkpoint,
    Close,
    EngineBuilt,
    Enough,
    Failed,
    Finished,
    Forget,
    Incomplete,
    Ready,
    Reconnect,
    Stop,
    StreamFacts,
    Unmap,
)

logger = logging.getLogger(__name__)

_TICK_MS = 100
_LEAVING_S = 5.0  # for processes that were told to leave; threads take as long as they take


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
    stopped: bool = False
    """Whether its user asked for no more input."""
    closing: bool = False
    """Whether its branch was told to leave."""
    answered: bool = False
    """Whether the stage that reads from the trunk has all it needs and ended."""
    checkpoint: Checkpoint | None = None
    """Where a reader that takes the place of another begins."""

    @property
    def elapsed_s(self) -> float:
        """Seconds from its start to its end, or to now."""
        if self.started_s is None:
            return 0.0
        return (self.ended_s or time.monotonic()) - self.started_s

    @property
    def fault(self) -> str:
        """The reason, led by the stream's name where it does not name its source itself."""
        if not self.reason or self.source.label in self.reason:
            return self.reason
        return f"{self.source.name}: {self.reason}"

    def fail(self, reason: str, trace: str = "") -> None:
        """Note the first thing that went wrong."""
        if self.complete:
            self.complete, self.reason, self.trace = False, reason, trace


class Supervisor:
    """Runs a plan."""

    def __init__(self, plan: Plan, counters: CounterTable) -> None:
        self.streams: Mapping[str, StreamState] = {
            name: StreamState(source=source) for name, source in plan.sources.items()
        }
        self.usage: dict[str, Mapping[str, int]] = {}
        """Where the time of each stage went, by worker."""
        self.engines: list[EngineBuilt] = []
        """What the trunk runs, in the order it was built."""
        self.replaced: list[Death] = []
        """The deaths that were made good."""
        self._parallel = plan.config.parallel
        self._limits = plan.config.supervision
        self._counters = counters
        self._crew = Crew(plan, counters)
        self._graph = self._crew.graph
        self._from_trunk = {link for stage in self._graph.trunk for link in stage.writes}
        self._worker: dict[str, tuple[Stage, str]] = {}
        """The stage and the stream of each worker."""
        self._replacing: set[str] = set()
        """Workers that take the place of others, whose writers do not know them yet."""
        self._deaths: defaultdict[tuple[str, str], deque[float]] = defaultdict(deque)
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
            self._start_trunk()
            while waiting or self._live_streams():
                self._start_streams(waiting)
                for worker, report in self._crew.listen(_TICK_MS):
                    self._handle(worker, report)
                for death in self._crew.deaths():
                    self._bury(death)
                self._pass_on_stops(waiting)
                on_tick()
        finally:
            self._leave()

    def _start_trunk(self) -> None:
        for group in self._graph.groups(self._graph.trunk):
            self._start(group, "")

    def _start_streams(self, waiting: deque[StreamState]) -> None:
        """Begin cameras at once, and files while fewer than `parallel` are being read."""
        if self._stop_level:
            return
        files = sum(not state.source.live for state in self._live_streams())
        for state in tuple(waiting):
            if not state.source.live and files >= self._parallel:
                continue
            files += not state.source.live
            waiting.remove(state)
            state.started_s = time.monotonic()
            for group in self._graph.groups(self._graph.branch):
                state.working.update(self._start(group, state.source.name))

    def _start(
        self, group: str, stream: str, checkpoint: Checkpoint | None = None
    ) -> tuple[str, ...]:
        for stage in self._graph.group(group):
            self._worker[worker_name(stage.name, stream)] = (stage, stream)
        return tuple(self._crew.start(group, stream, checkpoint))

    def _handle(self, worker: str, report: AnyReport) -> None:
        stage, stream = self._worker[worker]
        match report:
            case Ready() if worker in self._replacing:
                self._replacing.discard(worker)
                self._introduce(stage, stream)
            case Finished(usage=usage):
                self.usage[worker] = usage
                if stream and any(link in stage.reads for link in self._from_trunk):
                    self.streams[stream].answered = True
                    self._forget(self.streams[stream])  # what still comes to it came twice
            case EngineBuilt():
                self.engines.append(report)
        if stream:
            self._handle_branch(worker, self.streams[stream], report)
        elif isinstance(report, Failed):
            self._end_run(report.message, report.trace)

    def _handle_branch(self, worker: str, state: StreamState, report: AnyReport) -> None:
        match report:
            case StreamFacts():
                state.facts = report
            case Checkpoint():
                state.checkpoint = report
            case Enough():  # said again by a decoder that takes the place of this one
                self._crew.tell(worker_name("source", state.source.name), Stop())
            case Incomplete(reason=reason):
                state.fail(reason)
            case Failed():
                state.fail(report.message, report.trace)
                self._end_stream(state)
            case Finished(outputs=outputs):
                state.outputs.extend(outputs)
        if isinstance(report, Finished | Failed):
            self._leave_branch(state, (worker,))

    def _leave_branch(self, state: StreamState, workers: Sequence[str]) -> None:
        state.working.difference_update(workers)
        if not state.working and state.ended_s is None:
            self._close_stream(state)

    def _close_stream(self, state: StreamState) -> None:
        """The branch is gone: the trunk may forget it, its memory goes back."""
        state.ended_s = time.monotonic()
        counters = self._counters[state.source.name]
        damaged = counters["dropped_corrupt"]
        if damaged and not state.source.live:
            state.fail(f"{damaged} of {counters['decoded']} frames are damaged and were left out")
        counters.add(
            "dropped_shutdown" if self._stop_level > 1 else "dropped_stage_died",
            counters.num_in_flight,
        )
        self._forget(state)
        self._crew.discard_pools(state.source.name)

    def _forget(self, state: StreamState) -> None:
        """Have the trunk take what it sends to this stream as acknowledged from here on."""
        for stage in self._graph.trunk:
            self._crew.tell(stage.name, Forget(stream=state.source.name))

    def _bury(self, death: Death) -> None:
        """Replace a process that died, or end what cannot go on without it."""
        for pool in death.pools:
            for stage in self._graph.trunk:
                self._crew.tell(stage.name, Unmap(pool=pool))
        lost = [worker_name(stage.name, death.stream) for stage in self._graph.group(death.group)]
        if not death.stream:
            self._replace_trunk(death)
            return
        state = self.streams[death.stream]
        fatal = death.group == "sinks" or (death.group == "track" and not state.source.live)
        if not (state.closing or fatal) and self._may_replace(death):
            logger.warning("%s: %s: %s; replaced", death.stream, death.group, death.reason)
            self._replacing.update(lost)
            self.replaced.append(death)
            state.working.update(self._start(death.group, death.stream, state.checkpoint))
            if state.stopped:
                self._stop_source(state)
            return
        state.fail(f"the process of {', '.join(lost)} ended before its work did: {death.reason}")
        self._end_stream(state)
        self._leave_branch(state, lost)

    def _replace_trunk(self, death: Death) -> None:
        if self._live_streams() and self._may_replace(death):
            logger.warning("%s: %s; replaced", death.group, death.reason)
            lost = (worker_name(stage.name, "") for stage in self._graph.group(death.group))
            self._replacing.update(lost)
            self.replaced.append(death)
            self._start(death.group, "")
            for state in self._live_streams():
                if state.answered:  # the one that died was told, this one was not
                    self._forget(state)
        else:
            self._end_run(f"the process of {death.group} ended before its work did: {death.reason}")

    def _may_replace(self, death: Death) -> bool:
        times, now_s = self._deaths[death.group, death.stream], time.monotonic()
        times.append(now_s)
        while times[0] < now_s - self._limits.restart_window_s:
            times.popleft()
        return len(times) < self._limits.restarts

    def _introduce(self, stage: Stage, stream: str) -> None:
        """Turn the writers of what a stage reads to the worker that is new in its place."""
        for link in stage.reads:
            writer = self._graph.writer(link)
            if writer.group == stage.group:
                continue  # it is as new, and connected to no other
            address = self._crew.address(link, stage, stream)
            streams = [stream]
            if not stream and writer in self._graph.branch:
                streams = [state.source.name for state in self._live_streams()]
            for name in streams if writer in self._graph.branch else [""]:
                self._crew.tell(worker_name(writer.name, name), Reconnect(address=address))

    def _stop_source(self, state: StreamState) -> None:
        state.stopped = True
        self._crew.tell(worker_name("source", state.source.name), Stop())

    def _end_stream(self, state: StreamState) -> None:
        """Tell the rest of a branch to leave."""
        state.closing = True
        for worker in state.working:
            self._crew.tell(worker, Close())

    def _end_run(self, reason: str, trace: str = "") -> None:
        for state in self.streams.values():
            if state.ended_s is None:
                state.fail(reason, trace)
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
                self._stop_source(state)
            else:
                state.fail("ended at once")
                self._end_stream(state)

    def _live_streams(self) -> list[StreamState]:
        return [state for state in self.streams.values() if state.working]

    def _leave(self) -> None:
        """End what still runs, then give back sockets and memory."""
        for worker in self._crew.working:
            self._crew.tell(worker, Close())
        until_s = time.monotonic() + _LEAVING_S
        while self._crew.working:
            for worker, report in self._crew.listen(_TICK_MS):
                if isinstance(report, Finished):
                    self.usage[worker] = report.usage
            if time.monotonic() > until_s:
                self._crew.kill()
            for _ in self._crew.deaths():
                pass  # it was to leave anyway
        self._crew.close()
