# SPDX-License-Identifier: Apache-2.0
"""Everyone who works for a run: threads of this process, and processes with threads of their own.

Who hears of what goes by the name of the worker; where it works is settled here. A process that
dies, or shows no sign of life, is reported with the group of stages and the stream it worked for.
"""

import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import zmq

from pipeline.branch import Branch
from pipeline.graph import Plan, video_graph
from pipeline.host import Assignment, Host, Surroundings, worker_name
from pipeline.metrics import CounterTable
from pipeline.topology import Addresses, Link, Stage, numbered
from pipeline.transport.control import AnyCommand, AnyReport, Checkpoint, Failed, Finished
from pipeline.transport.memory import PoolDesk, Pools
from pipeline.transport.orders import (
    Alive,
    AnyOrder,
    Began,
    Begin,
    Fork,
    Gone,
    Heard,
    Tell,
    news,
    send,
    socket_pair,
)
from pipeline.trunk import Trunk
from pipeline.worker import Setup

_LEAVING_S = 5.0
_THREADS_OF_LIBRARIES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
)


@dataclass(frozen=True, slots=True)
class Death:
    """A process ended before its stages did."""

    group: str
    stream: str
    reason: str
    pools: tuple[str, ...]
    """Its pools, which are given up; the messages that name them lead nowhere."""
    trunk: int = 0
    """The number of the trunk it was, if it was one."""

    @property
    def whose(self) -> str:
        """The group, and the stream or the trunk."""
        return f"{self.group} {self.stream}" if self.stream else numbered(self.group, self.trunk)


class WorkerProcess:
    """The supervisor's end of a process."""

    def __init__(self, name: str, group: str) -> None:
        self.name = name
        self.group = group
        self.stream = ""
        self.trunk = 0
        self.working: set[str] = set()
        """Its workers that have not ended."""
        self.control, self.control_end = socket_pair()
        self.pools, self.pools_end = socket_pair()
        self.pid = 0
        self.alive_s = time.monotonic()
        self.busy_s = 0.0
        self.reason = ""

    def order(self, order: AnyOrder, descriptors: Sequence[int] = ()) -> None:
        """Send an order; a process that is gone does not hear it."""
        try:
            send(self.control, order, descriptors)
        except Gone:
            return

    def hear(self) -> Iterator[tuple[str, AnyReport]]:
        """What its workers have reported.

        Raises:
            Gone: the process ended.
        """
        for item in news(self.control):
            self.alive_s = time.monotonic()
            match item:
                case Began(pid=pid):
                    self.pid = pid
                case Alive(busy_s=busy_s):
                    self.busy_s = busy_s
                case Heard(worker=worker, report=report):
                    if isinstance(report, Finished | Failed):
                        self.working.discard(worker)
                    yield worker, report

    def kill(self, reason: str) -> None:
        """End it; its death is seen like any other."""
        self.reason = self.reason or reason
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        else:
            with suppress(OSError):  # it may be closed already
                self.control.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close our ends; a process that still works ends by that."""
        for end in (self.control, self.control_end, self.pools, self.pools_end):
            end.close()


class Crew:
    """Starts workers where the settings place them, and speaks with all of them."""

    def __init__(self, plan: Plan, counters: CounterTable) -> None:
        processes = plan.config.placement == "processes"
        scheme = "ipc://@sightline-" if processes else "inproc://"
        self._addresses = Addresses(scheme + uuid.uuid4().hex)
        self.graph = video_graph(plan, counters)
        handed_over = plan.take is not None or plan.observe is not None
        self._here = {"sinks"} if handed_over else set[str]()
        if not processes:
            self._here = {stage.group for stage in self.graph.stages}
        self._config = plan.config.supervision
        self._desk = PoolDesk()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._pools = Pools(self._desk)
        self._host = Host(Surroundings(self._context, self._addresses, self.graph, self._pools))
        self._hiring = _Hiring(plan, counters, self._addresses.base)
        self._processes: list[WorkerProcess] = []
        self._home: dict[str, Host | WorkerProcess] = {}
        self._dead: list[WorkerProcess] = []

    def start(
        self, group: str, errand: Branch | Trunk, checkpoint: Checkpoint | None = None
    ) -> list[str]:
        """Start the stages of a group, for a branch or a trunk; who they are."""
        stream, trunk = _place(errand)
        jobs = [
            Assignment(
                stage=stage.name, stream=stream, trunk=trunk, errand=errand, checkpoint=checkpoint
            )
            for stage in self.graph.group(group)
        ]
        home = self._home_of(group, stream, trunk)
        if isinstance(home, WorkerProcess):
            home.working.update(job.worker for job in jobs)
        for job in jobs:
            self._home[job.worker] = home
            if isinstance(home, Host):
                home.start(job)
            else:
                home.order(_begin(job))
        return [job.worker for job in jobs]

    def tell(self, worker: str, command: AnyCommand) -> None:
        """Send a command; a worker that is gone does not hear it."""
        match self._home.get(worker):
            case Host() as host:
                host.tell(worker, command)
            case WorkerProcess() as process:
                process.order(Tell(worker=worker, command=command))

    def give_up(self, worker: str, reason: str) -> bool:
        """End the process in which a worker has failed; False where it has none of its own."""
        home = self._home.get(worker)
        if not isinstance(home, WorkerProcess):
            return False
        home.working.add(worker)  # it did not do what it was there for
        home.kill(reason)
        return True

    def listen(self, timeout_ms: int) -> Iterator[tuple[str, AnyReport]]:
        """What is reported within the time; returns early once something was."""
        processes = [*self._processes, *self._hiring.nurseries]
        ends: list[zmq.Socket[bytes] | int] = [self._host.pollable]
        ends += [end.fileno() for process in processes for end in (process.control, process.pools)]
        ready = {end for end, _ in zmq.zmq_poll([(end, zmq.POLLIN) for end in ends], timeout_ms)}
        yield from self._host.hear()
        for process in processes:
            if process.pools.fileno() in ready:
                self._serve_pools(process)
            if process.control.fileno() in ready:
                yield from self._hear(process)

    def deaths(self) -> Iterator[Death]:
        """The processes that ended with work in their hands, after killing those that hang."""
        for process in self._processes:
            self._check(process)
        while self._dead:
            process = self._dead.pop()
            pools = self._desk.disown(process.name)
            if process.working:
                reason = process.reason or "it died"
                yield Death(process.group, process.stream, reason, pools, process.trunk)

    def address(self, link: Link, reader: Stage, stream: str, trunk: int) -> str:
        """Where a stage reads a link."""
        return self._addresses.link(self.graph, link, reader, stream, trunk)

    def kill(self) -> None:
        """End the processes that do not leave."""
        for process in self._processes:
            if process.working:
                process.kill("it did not leave")

    def discard_pools(self, stream: str) -> None:
        """Give up the pools of a stream that is over."""
        self._pools.discard(f"{stream}/")

    def forget(self, stream: str) -> None:
        """Keep nothing of a stream that is over; its name does not come again."""
        for stage in self.graph.branch:
            self._home.pop(worker_name(stage.name, stream), None)
        self._desk.forget(f"{stream}/")

    @property
    def working(self) -> list[str]:
        """The workers that have not ended."""
        return [*self._host.working, *(w for process in self._processes for w in process.working)]

    def close(self) -> None:
        """End what is left, without mercy, and give back sockets and memory."""
        for process in (*self._processes, *self._hiring.nurseries):
            if process.working:
                process.kill("the run is over")
            process.close()
        self._hiring.close()
        self._host.close()
        self._context.term()
        self._pools.forget_all()
        self._desk.close()

    def _home_of(self, group: str, stream: str, trunk: int) -> Host | WorkerProcess:
        """Where a group is to work."""
        if group in self._here:
            return self._host
        if group in self.graph.hosted:
            return self._home[worker_name(self.graph.trunk[0].name, trunk=trunk)]
        process = self._idle(group) or self._hire(group)
        process.stream, process.trunk = stream, trunk
        return process

    def _idle(self, group: str) -> WorkerProcess | None:
        idle = (p for p in self._processes if p.group == group and not p.working)
        return next(idle, None)

    def _hire(self, group: str) -> WorkerProcess:
        alone = group in self.graph.groups(self.graph.trunk)
        process = self._hiring.hire(group, alone=alone)
        self._processes.append(process)
        return process

    def _hear(self, process: WorkerProcess) -> Iterator[tuple[str, AnyReport]]:
        try:
            yield from process.hear()
        except Gone:
            process.close()
            if process in self._processes:
                self._processes.remove(process)
                self._dead.append(process)
            else:
                self._hiring.nurseries.remove(process)

    def _serve_pools(self, process: WorkerProcess) -> None:
        try:
            self._desk.answer(process.pools, process.name)
        except ConnectionError:
            return  # its end is heard on the other line

    def _check(self, process: WorkerProcess) -> None:
        """Kill a process that hangs."""
        silent_s = time.monotonic() - process.alive_s
        if process.pid == 0 and silent_s > self._config.start_s:
            limit = f"supervision.start_s {self._config.start_s:g}"
            process.kill(f"it did not begin to work within {silent_s:.0f} s ({limit})")
        elif process.pid and max(silent_s, process.busy_s) > self._config.hang_s:
            limit = f"supervision.hang_s {self._config.hang_s:g}"
            process.kill(f"it hung for {max(silent_s, process.busy_s):.0f} s ({limit}), killed")


def _place(errand: Branch | Trunk) -> tuple[str, int]:
    """The stream, if there is one, and the trunk."""
    match errand:
        case Branch(stream=stream, trunk=trunk):
            return stream, trunk
        case Trunk(number=number):
            return "", number


def _begin(job: Assignment) -> Begin:
    return Begin(
        stage=job.stage,
        stream=job.stream,
        trunk=job.trunk,
        errand=pickle.dumps(job.errand),
        checkpoint=job.checkpoint,
    )


class _Hiring:
    """Starts processes: the trunk's from nothing, those of branches as forks of a nursery."""

    def __init__(self, plan: Plan, counters: CounterTable, base: str) -> None:
        self.nurseries: list[WorkerProcess] = []
        """The nursery, once there is one, until it dies."""
        self._counters = counters
        self._setup = Setup(
            plan=replace(plan, take=None, observe=None),
            base=base,
            log_level=logging.getLogger().getEffectiveLevel(),
            supervisor=os.getpid(),
        )
        self._setup_file: int | None = None
        self._count = 0
        self._children: list[subprocess.Popen[bytes]] = []

    def hire(self, group: str, *, alone: bool) -> WorkerProcess:
        """A new process; `alone` makes it one that shares no import with others."""
        self._children = [child for child in self._children if child.poll() is None]
        if alone:
            return self._spawn(group, {})
        if not self.nurseries:
            self.nurseries.append(self._spawn("", dict.fromkeys(_THREADS_OF_LIBRARIES, "1")))
        process = self._new(group)
        ends = (process.control_end, process.pools_end)
        self.nurseries[0].order(Fork(), [end.fileno() for end in ends])
        for end in ends:
            end.close()
        return process

    def close(self) -> None:
        """See every child off."""
        until_s = time.monotonic() + _LEAVING_S
        for child in self._children:
            try:
                child.wait(max(0.0, until_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        if self._setup_file is not None:
            os.close(self._setup_file)

    def _new(self, group: str) -> WorkerProcess:
        self._count += 1
        return WorkerProcess(f"{group}#{self._count}", group)

    def _spawn(self, group: str, environment: Mapping[str, str]) -> WorkerProcess:
        process = self._new(group)
        setup = self._written_setup()
        child = subprocess.Popen(
            [sys.executable, "-m", "pipeline.worker", str(process.control_end.fileno())],
            env={
                **os.environ,
                **environment,
                # what is importable here is importable there, and nothing else is
                "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
                "PYTHONSAFEPATH": "1",
            },
            stdin=subprocess.DEVNULL,
            pass_fds=[process.control_end.fileno()],
        )
        self._children.append(child)
        ends = (process.control_end, process.pools_end)
        descriptors = [setup, self._counters.descriptor, process.pools_end.fileno()]
        socket.send_fds(process.control, [b"S"], descriptors)
        for end in ends:
            end.close()
        return process

    def _written_setup(self) -> int:
        """The setup in a memory file, since it may be longer than a packet."""
        if self._setup_file is None:
            self._setup_file = os.memfd_create("sightline-setup", os.MFD_CLOEXEC)
            with open(self._setup_file, "wb", closefd=False) as file:
                pickle.dump(self._setup, file)
        return self._setup_file
