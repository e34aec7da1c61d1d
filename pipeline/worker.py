# SPDX-License-Identifier: Apache-2.0
"""A worker process: `python -m pipeline.worker DESCRIPTOR`, the supervisor's socket.

It runs the stages it is told to and ends when the supervisor does. One of them is a nursery: it
imports what the branches of streams need, runs nothing, and forks. A process from it is there in
milliseconds and shares the memory of those imports, so that a stream costs its own data alone.
"""

import ctypes
import gc
import logging
import os
import pickle
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.transport.descriptors import receive
from pipeline.transport.orders import (
    Alive,
    AnyOrder,
    Began,
    Begin,
    Fork,
    Gone,
    Heard,
    Tell,
    next_order,
    send,
)

if TYPE_CHECKING:
    from pipeline.graph import Plan
    from pipeline.host import Host
    from pipeline.transport.memory import Pools

_PR_SET_PDEATHSIG = 1
_ALIVE_S = 1.0
_SETTING_UP = 3  # descriptors: the setup, the counters, the pools' line


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What every process of a run is told first."""

    plan: "Plan"
    base: str
    """Where links meet, see `Addresses`."""
    log_level: int
    supervisor: int
    """Its process."""


@dataclass(frozen=True, slots=True)
class Lines:
    """The sockets of one process to the supervisor."""

    control: socket.socket
    pools: socket.socket


def main() -> None:
    """Serve until the supervisor's socket closes."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the supervisor decides when work ends
    control = socket.socket(fileno=int(sys.argv[1]))
    _, descriptors = receive(control, 1)
    if len(descriptors) < _SETTING_UP:
        return  # the supervisor has gone
    size = os.fstat(descriptors[0]).st_size
    setup: Setup = pickle.loads(os.pread(descriptors[0], size, 0))  # made by our own parent
    os.close(descriptors[0])
    _die_with(setup.supervisor)
    if setup.plan.logs is not None:
        setup.plan.logs.begin(setup.log_level)
    else:
        logging.basicConfig(format="sightline: %(message)s", level=setup.log_level)
    _serve(setup, descriptors[1], Lines(control, socket.socket(fileno=descriptors[2])))


def _serve(setup: Setup, counters: int, lines: Lines) -> None:
    """Work, or fork those that do: the first order tells."""
    send(lines.control, Began(pid=os.getpid()))
    try:
        order, descriptors = next_order(lines.control)
        while isinstance(order, Fork):
            _fork(setup, counters, lines, descriptors)
            order, descriptors = next_order(lines.control)
    except Gone:
        return
    _work(setup, counters, lines, order)


def _fork(setup: Setup, counters: int, lines: Lines, descriptors: list[int]) -> None:
    _warm()
    if os.fork() == 0:
        for line in (lines.control, lines.pools):
            line.close()
        control, pools = (socket.socket(fileno=number) for number in descriptors)
        try:
            _serve(setup, counters, Lines(control, pools))
        finally:
            os._exit(0)
    for number in descriptors:
        os.close(number)


def _warm() -> None:
    """Import what branches need, once; what is imported is not touched by the collector again."""
    if gc.get_freeze_count():
        return
    _show_as("nursery")
    import pipeline.drawing.drawer
    import pipeline.graph
    import pipeline.tracking.association  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    gc.collect()
    gc.freeze()


def _work(setup: Setup, counters: int, lines: Lines, order: AnyOrder) -> None:
    """Run stages until the supervisor is gone; what is left of them then is of no use."""
    import zmq

    from pipeline.graph import video_graph
    from pipeline.host import Host, Surroundings
    from pipeline.metrics import CounterTable
    from pipeline.topology import Addresses
    from pipeline.transport.memory import PoolLine, Pools

    assert isinstance(order, Begin)
    graph = video_graph(setup.plan, CounterTable(descriptor=counters))
    _show_as(next(stage.group for stage in graph.stages if stage.name == order.stage))
    pools = Pools(PoolLine(lines.pools))
    host = Host(Surroundings(zmq.Context(), Addresses(setup.base), graph, pools))
    try:
        _obey(host, order)
        _relay(host, pools, lines.control, os.pidfd_open(setup.supervisor))
    except Gone:
        return
    finally:
        os._exit(0)  # stages that still run hold nothing that anyone waits for


def _relay(host: "Host", pools: "Pools", control: socket.socket, supervisor: int) -> None:
    """Pass orders and reports on until the supervisor is gone."""
    import zmq

    alive_s = 0.0
    ends = [(end, zmq.POLLIN) for end in (control, host.pollable, supervisor)]
    while True:
        ready = [end for end, _ in zmq.zmq_poll(ends, round(_ALIVE_S * 1000))]
        if supervisor in ready:
            return
        for worker, report in host.hear():
            send(control, Heard(worker=worker, report=report))
        if not host.working:
            pools.forget_all()
        if control.fileno() in ready:
            _obey(host, next_order(control)[0])
        if time.monotonic() >= alive_s:
            send(control, Alive(busy_s=host.busy_s))
            alive_s = time.monotonic() + _ALIVE_S


def _obey(host: "Host", order: AnyOrder) -> None:
    from pipeline.host import Assignment

    match order:
        case Begin():
            host.start(
                Assignment(
                    stage=order.stage,
                    stream=order.stream,
                    trunk=order.trunk,
                    errand=pickle.loads(order.errand),
                    checkpoint=order.checkpoint,
                )
            )
        case Tell():
            host.tell(order.worker, order.command)


def _show_as(name: str) -> None:
    """Be found in `ps` and `top` by what this process is for."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(f"sightline-{name}")


def _die_with(supervisor: int) -> None:
    """Have the kernel end this process with its parent, however busy it is then."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:
        os._exit(0)


if __name__ == "__main__":
    main()
