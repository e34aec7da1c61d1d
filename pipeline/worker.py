# SPDX-License-Identifier: Apache-2.0
"""One stage at work: opens its ports, runs it, and reports how it ended, whatever happened."""

import time
import traceback
from dataclasses import asdict, dataclass

from model.errors import ModelError
from pipeline.errors import PipelineError
from pipeline.topology import Addresses, Graph, Link, Stage
from pipeline.transport.control import AnyReport, ControlLine, Failed, Finished, Ready
from pipeline.transport.pool import Pools
from pipeline.transport.ports import ClosedDown, Context, Ports, Route


def worker_name(stage: str, stream: str) -> str:
    """How a worker is called on the control line: the stage, and the stream if it has one."""
    return f"{stage}:{stream}" if stream else stage


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every worker of a run shares."""

    context: Context
    addresses: Addresses
    graph: Graph
    pools: Pools


def work(around: Surroundings, stage: Stage, stream: str) -> None:
    """Run a stage to its end; every outcome is a report, none is an exception."""
    name = worker_name(stage.name, stream)
    line = ControlLine(around.context, around.addresses.control(), name)
    try:
        report: AnyReport = _run(around, stage, stream, line)
    except (PipelineError, ModelError) as error:
        report = Failed(message=str(error), trace="")
    except Exception as error:  # noqa: BLE001 - the one place where a stray error is reported
        message = f"stage {name} failed: {type(error).__name__}: {error}"
        report = Failed(message=message, trace=traceback.format_exc())
    line.report(report)
    line.close()


def _run(around: Surroundings, stage: Stage, stream: str, line: ControlLine) -> Finished:
    started_ns, started_cpu_ns = time.monotonic_ns(), time.thread_time_ns()
    ports = open_ports(around, stage, stream, line)
    try:
        line.report(Ready())
        outputs = stage.make(stream).run(ports)
    except ClosedDown:
        outputs = ()
    finally:
        ports.close()
    ports.usage.running_ns = time.monotonic_ns() - started_ns
    ports.usage.cpu_ns = time.thread_time_ns() - started_cpu_ns
    return Finished(usage=asdict(ports.usage), outputs=outputs)


def open_ports(around: Surroundings, stage: Stage, stream: str, line: ControlLine) -> Ports:
    """The ports of a stage, its inlets bound."""
    graph, addresses = around.graph, around.addresses

    def route(link: Link) -> Route:
        readers = graph.readers(link)
        return Route(
            link=link,
            addresses=lambda to: [addresses.link(graph, link, reader, to) for reader in readers],
        )

    return Ports(
        around.context,
        worker_name(stage.name, stream),
        line,
        around.pools,
        inlets={
            link.name: (link, addresses.link(graph, link, stage, stream)) for link in stage.reads
        },
        routes={link.name: route(link) for link in stage.writes},
    )
