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
8.  The trunk is replaced on its device, and every decoder whose stream is there sends again what
    has no tracks yet: the tracks are the same.
9.  The reader of a file (source and decoder) is replaced; it decodes again from a keyframe before
    the first frame without tracks and sends no frame twice: the tracks are the same. The reader of
    a camera is replaced too; the frames it had decoded and that have no tracks yet count as
    `stage-died`, and the tracker begins anew.
10. The tracker of a camera is replaced and begins anew, with identities that were not given
    before. Without the tracker of a file, or the sinks of any stream, that stream has failed as
    in 3.
11. A group of stages that dies `supervision.restarts` times in `supervision.restart_window_s` is
    not replaced any more: a branch then fails as in 3, the last trunk as in 4. A trunk that is not
    the last is given up with its device, for as long as the run lasts, and that is told once.
12. When the supervisor itself dies, every process ends, and with the last of them the memory;
    nothing has a name in the file system.

Streams come and go (`add`, `remove`, `replace`, from any thread):

13. A stream that is wanted no longer, or otherwise, is asked to end as in 5, and all it read is
    worked on; if it has not ended within 10 s it is ended as in 3. Only when its branch is gone may
    another begin under the same name, as a new branch: no message of the old one can reach it, its
    frames count from 0, its identities go on. Other branches are told nothing.
14. What a branch has counted is kept for its camera's totals when it is gone, and its row of the
    counters is free. There are never more branches than rows: who comes too early waits.

The model may change at run time (`swap_model`):

17. The new one is built and warmed for every shape in use beside the one that runs. Then all frames
    go to it, from one to the next: those under way are finished by the old one, none is looked at
    by both, and tracks go on. If building, warming or one of its first 8 results fails, or its
    process dies over it, the old one runs on and the reason is told. A trunk that is replaced runs
    the model in use. Of several trunks each keeps the old one until the new one has come so far in
    all of them; if it fails in one, all go back.

Where there are several accelerators (`gpu.devices`), each has a trunk:

18. A stream is given to the one with the fewest of its kind and stays there till its end, unless 19
    holds. What happens to a trunk, streams at others are not told of.
19. The streams of a trunk that is given up go over to others, as the branches they are: each
    decoder sends there what has no tracks yet, as in 8. The tracks of a file are the same; a camera
    loses the frames that are too old by then, or found no room meanwhile.
20. Decoders that use the GPU (`gpu.decode`) work in the process of their trunk and die with it:
    their readers are ended for it, and both begin anew as in 9, where their trunk then is. A reader
    that dies alone is replaced, and its decoder goes on where it is.

Where the plan is a service:

15. It does not end with its streams, only when it is asked to stop, or by its trunk as in 4 and 11;
    a trunk in a process of its own whose stage fails is replaced as if it had died. What ended the
    service stands in `fault`.
16. A camera is tried for ever, also one that never gave a frame. A branch that failed is begun
    anew, at once while it is among the first `supervision.restarts` failures within
    `supervision.restart_window_s`; else it is `failed`, and is begun anew after
    `service.retry_failed_s`.
"""

import itertools
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pipeline.branch import Branch
from pipeline.branches import Branches
from pipeline.crew import Crew, Death
from pipeline.decoding.inputs import Source
from pipeline.failures import Failures
from pipeline.graph import Plan
from pipeline.host import worker_name
from pipeline.hosted import Hosted
from pipeline.metrics import CounterTable
from pipeline.models import ModelInUse
from pipeline.roster import Roster
from pipeline.streams import StreamState
from pipeline.swapping import Swapping
from pipeline.topology import Stage
from pipeline.totals import Counted
from pipeline.transport.control import (
    AnyReport,
    CameraState,
    Checkpoint,
    Close,
    DecodePath,
    EncoderPicked,
    EngineBuilt,
    Enough,
    Failed,
    Finished,
    Incomplete,
    ModelSwapped,
    Ready,
    Stop,
    StreamFacts,
    SwapFailed,
    Unmap,
)
from pipeline.trunk import Trunk
from pipeline.trunks import DeviceState, Trunks
from pipeline.wiring import Wiring

logger = logging.getLogger(__name__)

_TICK_MS = 100
_LEAVING_S = 5.0  # for processes that were told to leave; threads take as long as they take
_ENDING_S = 10.0  # for a branch that is asked to end while others go on
_MOST_REMEMBERED = 1000


class Post(NamedTuple):
    """Where a worker stands."""

    stage: Stage
    stream: str
    """Empty in a trunk."""
    trunk: int
    """The number of the trunk; of a stage in a branch `Branch.trunk` says it."""


class Supervisor:
    """Runs a plan."""

    def __init__(self, plan: Plan, counters: CounterTable, sources: Sequence[Source] = ()) -> None:
        self.usage: dict[str, Mapping[str, int]] = {}
        """Where the time of each stage went, by worker."""
        self.engines: deque[EngineBuilt] = deque(maxlen=_MOST_REMEMBERED)
        """What the trunk was given to run, in the order it was built."""
        self.replaced: deque[Death] = deque(maxlen=_MOST_REMEMBERED)
        """The latest deaths that were made good."""
        self.num_replaced: Counter[str] = Counter()
        """How many there were of each group."""
        self.fault = ""
        """What ended it, where that was no user."""
        self._parallel = plan.config.parallel
        self._service = plan.service
        self._swapping = Swapping(plan)
        self._trunks = Trunks(plan.devices)
        self._crew = Crew(plan, counters)
        self._graph = self._crew.graph
        self._from_trunk = {link for stage in self._graph.trunk for link in stage.writes}
        self._worker: dict[str, Post] = {}
        self._replacing: set[str] = set()
        """Workers that take the place of others, whose writers do not know them yet."""
        self._failures = Failures(plan.config.supervision)
        self._stops = itertools.count()
        self._stop_level = 0
        self._stop_done = 0
        self._branches = Branches(counters)
        self._wiring = Wiring(self._crew, self._branches)
        self._hosted = Hosted(self._crew)
        self._roster = Roster(sources, counters.room)
        for source in sources:
            self._branches.enrol(source)

    @property
    def streams(self) -> Mapping[str, StreamState]:
        """The last branch of each stream, by the name its user gave it; for any thread to read."""
        return self._branches.streams

    def stop(self) -> None:
        """End the run early; twice, at once. May be called from a signal handler."""
        self._stop_level = next(self._stops) + 1

    def add(self, source: Source) -> None:
        """Begin another stream; from any thread.

        Raises:
            CameraRefused: its name is taken, or there is no room.
        """
        self._roster.add(source)

    def remove(self, name: str) -> None:
        """End a stream in good order; from any thread.

        Raises:
            CameraRefused: there is none of this name.
        """
        self._roster.remove(name)

    def replace(self, source: Source) -> None:
        """End a stream in good order and begin it anew as it is now; from any thread.

        Raises:
            CameraRefused: there is none of this name.
        """
        self._roster.replace(source)

    def swap_model(self, weights: Path) -> Future[ModelInUse]:
        """Have other weights take the place of those that run; from any thread.

        The future gives the model once its first results are as they should be, or an
        `EngineError` that says why those before run on.

        Raises:
            ModelError: the file cannot be read or run, lacks classes that are looked for, or
                another swap is under way.
        """
        return self._swapping.ask(weights, self._roster.wanted.values())

    @property
    def model(self) -> ModelInUse:
        """What the trunks run."""
        return self._swapping.in_use

    def engines_in_use(self) -> tuple[EngineBuilt, ...]:
        """The last that was built for each device and shape, of the model in use.

        Those before it were a trunk's that died. May be called from any thread.
        """
        model, lost = self.model.number, self._trunks.lost
        built = [e for e in tuple(self.engines) if e.model == model and e.device not in lost]
        return tuple({(each.device, each.input_shape): each for each in built}.values())

    def devices(self) -> tuple[DeviceState, ...]:
        """How each accelerator is doing; from any thread."""
        return self._trunks.states(self.streams.values())

    def device_of(self, state: StreamState) -> int:
        """The accelerator that looks at a stream, or did last."""
        return self._trunks.device(state.branch.trunk)

    def counted(self) -> Mapping[str, Counted]:
        """What every camera there is or was has counted, over all its branches."""
        return self._branches.counted()

    def run(self, on_tick: Callable[[], None] = lambda: None) -> None:
        """Run every stream to its end; `on_tick` is called about ten times a second.

        How each stream ended stands in `streams`; nothing is raised for a stream's failure.
        """
        try:
            for number in self._trunks.working:
                self._start_trunk(number)
            while self._goes_on:
                self._follow_roster()
                self._pass_on_swaps()
                self._start_streams()
                for worker, report in self._crew.listen(_TICK_MS):
                    self._handle(worker, report)
                for death in self._crew.deaths():
                    self._bury(death)
                self._pass_on_stops()
                on_tick()
        finally:
            self._leave()

    @property
    def _goes_on(self) -> bool:
        lasting = self._service is not None and not self._stop_level
        return lasting or bool(self._branches.waiting or self._branches.working)

    def _follow_roster(self) -> None:
        """Make of what there is what is wanted."""
        if self._stop_level:
            return
        wanted, now_s = self._roster.wanted, time.monotonic()
        for name, state in self.streams.items():
            if state.working and wanted.get(name) != state.source:
                self._end_in_good_order(state, now_s)
            elif not state.working and name not in wanted:
                self._retire(state)
        for name, source in wanted.items():
            last = self.streams.get(name)
            if last is None or last.is_due(source, now_s):
                if last is not None:
                    self._retire(last)
                self._branches.enrol(source)

    def _end_in_good_order(self, state: StreamState, now_s: float) -> None:
        if not state.stopped:
            state.leave_by_s = now_s + _ENDING_S
            self._stop_source(state)
        elif now_s > state.leave_by_s and not state.closing:
            state.fail(f"it did not end within {_ENDING_S:g} s of being asked to")
            self._end_stream(state)

    def _retire(self, state: StreamState) -> None:
        """Let go of a branch that is gone; last of its name, which other threads look at."""
        stream = state.branch.stream
        self._crew.forget(stream)
        for stage in self._graph.branch:
            worker = worker_name(stage.name, stream)
            self._worker.pop(worker, None)
            self.usage.pop(worker, None)
            self._replacing.discard(worker)
        self._hosted.forget(stream)
        self._branches.retire(state)

    def _start_trunk(self, number: int) -> None:
        for group in self._graph.groups(self._graph.trunk):
            self._start(group, self._trunks.errand(number, self._swapping.in_use))

    def _pass_on_swaps(self) -> None:
        trunks = self._trunks.working
        for order in self._swapping.orders(trunks):
            for number in trunks:
                self._crew.tell(worker_name("infer", trunk=number), order)

    def _start_streams(self) -> None:
        """Begin cameras at once, and files while fewer than `parallel` are being read."""
        if self._stop_level:
            return
        files = sum(not state.source.live for state in self._branches.working)
        for state in tuple(self._branches.waiting):
            if not state.source.live and files >= self._parallel:
                continue
            files += not state.source.live
            self._branches.waiting.remove(state)
            trunk = self._trunks.least_busy(state.source, self._branches.working)
            state.branch = replace(state.branch, trunk=trunk)
            state.started_s = time.monotonic()
            for group in self._graph.groups(self._graph.branch):
                state.working.update(self._start(group, state.branch))

    def _start(
        self, group: str, errand: Branch | Trunk, checkpoint: Checkpoint | None = None
    ) -> list[str]:
        stream, trunk = ("", errand.number) if isinstance(errand, Trunk) else (errand.stream, 0)
        for stage in self._graph.group(group):
            self._worker[worker_name(stage.name, stream, trunk)] = Post(stage, stream, trunk)
        return self._crew.start(group, errand, checkpoint)

    def _handle(self, worker: str, report: AnyReport) -> None:
        stage, stream, trunk = self._worker[worker]
        state = self._branches.find(stream)
        match report:
            case Ready() if worker in self._replacing:
                self._replacing.discard(worker)
                self._wiring.introduce(stage, state, state.branch.trunk if state else trunk)
            case Finished(usage=usage):
                self.usage[worker] = usage
                if state and any(link in stage.reads for link in self._from_trunk):
                    state.answered = True
                    self._wiring.forget(state)  # what still comes to it came twice
                if state and stage.group in self._graph.hosted:
                    self._wiring.close_writers(stage, state)  # one came after the last packet
        if state:
            self._handle_branch(worker, state, report)
        else:
            self._handle_trunk(worker, trunk, report)

    def _handle_trunk(self, worker: str, trunk: int, report: AnyReport) -> None:
        match report:
            case EngineBuilt():
                self.engines.append(report)
            case ModelSwapped(number=number):
                self._swapping.on_passed(trunk, number)
            case SwapFailed(number=number, reason=reason):
                self._swapping.on_failed(number, self._trunks.named(trunk, reason))
            case Failed() if not self._give_up(worker, report):
                self._end_run(self._trunks.named(trunk, report.message), report.trace)

    def _give_up(self, worker: str, report: Failed) -> bool:
        """Have the process of a service's trunk replaced, if it has one."""
        if self._service is None:
            return False
        if report.trace:
            logger.error("%s", report.trace)
        return self._crew.give_up(worker, report.message)

    def _handle_branch(self, worker: str, state: StreamState, report: AnyReport) -> None:
        match report:
            case StreamFacts() | CameraState() | DecodePath() | EncoderPicked() | Checkpoint():
                state.note(report)
            case Enough():  # said again by a decoder that takes the place of this one
                self._crew.tell(worker_name("source", state.branch.stream), Stop())
            case Incomplete(reason=reason):
                state.fail(reason)
            case Failed():
                state.fail(report.message, report.trace)
                self._end_stream(state)
            case Finished(outputs=outputs):
                state.outputs.extend(outputs)
        if isinstance(report, Finished | Failed):
            self._leave_branch(state, (worker,))

    def _leave_branch(self, state: StreamState, workers: Collection[str]) -> None:
        state.working.difference_update(workers)
        if not state.working and state.ended_s is None:
            self._close_stream(state)
        elif self._hosted.may_begin(state):
            self._start_again(self._hosted.begin_anew, state)

    def _close_stream(self, state: StreamState) -> None:
        """The branch is gone: the trunk may forget it, its memory goes back."""
        state.ended_s = time.monotonic()
        counters = state.counters
        damaged = counters["dropped_corrupt"]
        if damaged and not state.source.live:
            state.fail(f"{damaged} of {counters['decoded']} frames are damaged and were left out")
        counters.add(
            "dropped_shutdown" if self._stop_level > 1 else "dropped_stage_died",
            counters.num_in_flight,
        )
        self._wiring.forget(state)
        self._crew.discard_pools(state.branch.stream)
        if self._service is not None and not (state.complete or state.stopped):
            self._plan_return(state, self._service.retry_failed_s)

    def _plan_return(self, state: StreamState, pause_s: float) -> None:
        """Settle when a branch that failed is begun anew."""
        state.failed = state.failed or not self._failures.note("branch", state.source.name)
        state.again_s = time.monotonic() + (pause_s if state.failed else 0)
        after = f"in {pause_s:g} s" if state.failed else "now"
        of_camera = {"camera": state.source.name}
        logger.warning("%s; it is begun anew %s", state.fault, after, extra=of_camera)

    def _bury(self, death: Death) -> None:
        """Replace a process that died, or end what cannot go on without it."""
        if not death.stream:
            self._bury_trunk(death)
            return
        state = self._branches.find(death.stream)
        assert state is not None
        for pool in death.pools:
            self._wiring.tell_trunk(state.branch.trunk, Unmap(pool=pool))
        lost = [worker_name(stage.name, death.stream) for stage in self._graph.group(death.group)]
        orphaned = death.group == "read" and self._hosted.is_orphan(state)
        if death.group == "read" and self._hosted.have_all(state) and not orphaned:
            self._leave_branch(state, lost)
            return
        fatal = death.group == "sinks" or (death.group == "track" and not state.source.live)
        again = fatal or orphaned or self._failures.note(death.group, state.source.name)
        if again and not (state.closing or fatal):
            told = (death.stream, death.group, death.reason)
            logger.warning("%s: %s: %s; replaced", *told, extra={"camera": state.source.name})
            self._note_replaced(death)
            if orphaned:
                self._leave_branch(state, lost)
            else:
                self._replacing.update(lost)
                self._start_again((death.group,), state)
            return
        state.failed = not again
        state.fail(f"the process of {', '.join(lost)} ended before its work did: {death.reason}")
        self._end_stream(state)
        self._leave_branch(state, lost)

    def _start_again(self, groups: Sequence[str], state: StreamState) -> None:
        """Start groups of a branch where those before them left off."""
        self._hosted.forget(state.branch.stream)
        for group in groups:
            state.working.update(self._start(group, state.branch, state.checkpoint))
        if state.stopped:
            self._stop_source(state)

    def _note_replaced(self, death: Death) -> None:
        self.replaced.append(death)
        self.num_replaced[death.group] += 1

    def _bury_trunk(self, death: Death) -> None:
        """Replace a trunk that died, or give it up, or end the run with the last."""
        again = self._goes_on and self._failures.note(death.group, str(death.trunk))
        last = not self._goes_on or self._trunks.working == (death.trunk,)
        named = partial(self._trunks.named, death.trunk)
        said = named(f"{death.group}: {death.reason}")
        streams = [s for s in self._branches.working if s.branch.trunk == death.trunk]
        self._swapping.on_trunk_lost(named(death.reason))
        if again:
            logger.warning("%s; replaced", said)
            self._note_replaced(death)
            self._replacing.update(
                worker_name(stage.name, trunk=death.trunk) for stage in self._graph.trunk
            )
            self._start_trunk(death.trunk)
        elif not last:
            logger.error("%s; given up, its streams go over to others", said)
            self._trunks.give_up(death.trunk, death.reason)
            for state in streams:
                others = self._branches.working
                self._wiring.move(state, self._trunks.least_busy(state.source, others))
        else:
            reason = f"the process of {death.group} ended before its work did: {death.reason}"
            self._end_run(named(reason))
        for state in streams:
            if state.answered:  # the one that died was told, this one was not
                self._wiring.forget(state)
            self._leave_branch(state, self._hosted.lose(state))

    def _stop_source(self, state: StreamState) -> None:
        state.stopped = True
        self._crew.tell(worker_name("source", state.branch.stream), Stop())

    def _end_stream(self, state: StreamState) -> None:
        """Tell the rest of a branch to leave."""
        state.closing = True
        for worker in state.working:
            self._crew.tell(worker, Close())

    def _end_run(self, reason: str, trace: str = "") -> None:
        self.fault = self.fault or reason
        for state in self.streams.values():
            if state.ended_s is None:
                state.fail(reason, trace)
                self._end_stream(state)
        self._stop_level = max(self._stop_level, 1)

    def _pass_on_stops(self) -> None:
        if self._stop_done == self._stop_level:
            return
        self._stop_done = self._stop_level
        while self._branches.waiting:
            self._branches.waiting.popleft().fail("not started")
        for state in self._branches.working:
            if self._stop_level == 1:
                self._stop_source(state)
            else:
                state.fail("ended at once")
                self._end_stream(state)

    def _leave(self) -> None:
        """End what still runs, then give back sockets and memory."""
        self._swapping.fail("the run is over")
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
