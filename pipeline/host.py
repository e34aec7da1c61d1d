# SPDX-License-Identifier: Apache-2.0
"""Stages at work in the threads of this process.

Each stage opens its ports, runs, and reports how it ended, whatever happened. The thread that
made the host speaks with them over a control line that never leaves the process.
"""

import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial

import zmq

from model.errors import ModelError
from pipeline.errors import PipelineError
from pipeline.topology import Addresses, Graph, Link, Stage, Worker, numbered
from pipeline.transport.control import (
    AnyCommand,
    AnyReport,
    Checkpoint,
    ControlDesk,
    ControlLine,
    Failed,
    Finished,
    Ready,
)
from pipeline.transport.memory import Pools
from pipeline.transport.ports import ClosedDown, Context, Ports, Route

_TRACE_CHARS = 16_000  # a report must fit one message
_SWITCH_S = 0.0005  # a frame's way is many turns of the interpreter; at 5 ms each it came too late


def worker_name(stage: str, stream: str = "", trunk: int = 0) -> str:
    """How a worker is called on the control line: the stage, and its stream or its trunk."""
    return f"{stage}:{stream}" if stream else numbered(stage, trunk)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every worker of a process shares."""

    context: Context
    addresses: Addresses
    graph: Graph
    pools: Pools


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A stage to run."""

    stage: str
    stream: str = ""
    """The stream of the branch it belongs to, if it does."""
    trunk: int = 0
    """The number of the trunk it belongs to, or its branch is at."""
    errand: object = None
    """What it is made for."""
    checkpoint: Checkpoint | None = None

    @property
    def worker(self) -> str:
        """Who does it."""
        return worker_name(self.stage, self.stream, self.trunk)


class Host:
    """Runs stages, one thread each; used by one thread."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._switch_s = sys.getswitchinterval()
        sys.setswitchinterval(min(_SWITCH_S, self._switch_s))
        self._line_address = f"inproc://{uuid.uuid4().hex}"
        self._desk = ControlDesk(around.context, self._line_address)
        self._stages = {stage.name: stage for stage in around.graph.stages}
        self._threads: dict[str, threading.Thread] = {}
        self._ports: dict[str, Ports] = {}
        self._unheard: dict[str, list[AnyCommand]] = {}
        """Commands for workers that are not on the line yet."""

    def start(self, job: "Assignment") -> None:
        """Begin a stage, for a stream if it belongs to a branch."""
        name = job.worker
        self._unheard[name] = []
        thread = threading.Thread(target=self._work, args=(name, job), name=name)
        self._threads[name] = thread
        thread.start()

    def tell(self, worker: str, command: AnyCommand) -> None:
        """Send a command; a worker that has ended does not hear it."""
        if worker in self._unheard:
            self._unheard[worker].append(command)
        elif worker in self._threads:
            self._desk.tell(worker, command)

    def hear(self) -> Iterator[tuple[str, AnyReport]]:
        """What has been reported, without waiting, with the worker's name."""
        while (heard := self._desk.hear(0)) is not None:
            worker, report = heard
            if isinstance(report, Ready):
                for command in self._unheard.pop(worker):
                    self._desk.tell(worker, command)
            if isinstance(report, Finished | Failed):
                self._unheard.pop(worker, None)
                self._ports.pop(worker, None)
                self._threads.pop(worker).join()
            yield worker, report

    @property
    def pollable(self) -> "zmq.Socket[bytes]":
        """Readable when there is something to hear."""
        return self._desk.socket

    @property
    def working(self) -> tuple[str, ...]:
        """The workers that have not ended."""
        return tuple(self._threads)

    @property
    def busy_s(self) -> float:
        """For how long a stage has been at one piece of work; the longest of all."""
        now_s = time.monotonic()
        since = (ports.busy_since_s for ports in tuple(self._ports.values()))
        return max((now_s - s for s in since if s is not None), default=0.0)

    def close(self) -> None:
        """Close the control line; every worker has ended."""
        self._desk.close()
        sys.setswitchinterval(self._switch_s)

    def _work(self, name: str, job: "Assignment") -> None:
        """Run a stage to its end; every outcome is a report, none is an exception."""
        line = ControlLine(self._around.context, self._line_address, name)
        try:
            stage = self._stages[job.stage]
            ports = open_ports(self._around, stage, job, line)
            self._ports[name] = ports
            report: AnyReport = _run(ports, partial(stage.make, job.errand))
        except (PipelineError, ModelError) as error:
            report = Failed(message=str(error), trace="")
        except Exception as error:  # noqa: BLE001 - the one place where a stray error is reported
            message = f"stage {name} failed: {type(error).__name__}: {error}"
            report = Failed(message=message, trace=traceback.format_exc()[-_TRACE_CHARS:])
        line.report(report)
        line.close()


def _run(ports: Ports, make: Callable[[], Worker]) -> Finished:
    started_ns, started_cpu_ns = time.monotonic_ns(), time.thread_time_ns()
    try:
        ports.report(Ready())
        outputs = make().run(ports)
    except ClosedDown:
        outputs = ()
    finally:
        ports.close()
    ports.usage.running_ns = time.monotonic_ns() - started_ns
    ports.usage.cpu_ns = time.thread_time_ns() - started_cpu_ns
    return Finished(usage=asdict(ports.usage), outputs=outputs)


def open_ports(around: Surroundings, stage: Stage, job: Assignment, line: ControlLine) -> Ports:
    """The ports of a stage, its inlets bound."""
    graph = around.graph

    def address(link: Link, reader: Stage, stream: str) -> str:
        return around.addresses.link(graph, link, reader, stream, job.trunk)

    def route(link: Link) -> Route:
        readers = graph.readers(link)
        return Route(
            link=link, addresses=lambda to: [address(link, reader, to) for reader in readers]
        )

    ports = Ports(
        around.context,
        job.worker,
        line,
        around.pools,
        inlets={link.name: (link, address(link, stage, job.stream)) for link in stage.reads},
        routes={link.name: route(link) for link in stage.writes},
    )
    ports.checkpoint = job.checkpoint
    return ports
