"""What a frame's step from one stage to the next costs, in threads and in processes.

    python tests/benchmarks/bench_hops.py

A writer leases a slot of 384x640x3, sends its header over a link, and a reader looks at the slot
and acknowledges: what `decode -> infer` does. The time is from just before `send` to the moment
the reader holds the picture. Idle: one frame every 5 ms on a quiet machine. Loaded: the same while
every core computes. Bare: a ZeroMQ message of 100 bytes over the same kind of socket, and nothing
else, which is the bound.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # called by its path

import numpy as np
import zmq
from timing import surroundings

from model.slicing import Region
from pipeline.messages import Ended, Frame, Part
from pipeline.topology import Link
from pipeline.transport.control import ControlDesk, ControlLine
from pipeline.transport.memory import PoolDesk, Pools
from pipeline.transport.ports import Ports, Route

LINK = Link("frames", Frame, depth=8, window=8, resend=True)
SHAPE = (1, 384, 640, 3)
WARM_UP = 50
PAUSE_S = 0.005


def main() -> None:
    """Run both placements in turn, idle and loaded, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=1000)
    options = parser.parse_args()
    runs: dict[str, Callable[[int], list[float]]] = {
        "threads": in_threads,
        "processes": in_two,
        "bare, threads": bare_in_threads,
        "bare, processes": bare_in_two,
    }
    count = options.frames + WARM_UP
    result = {"idle": {name: figures(run(count)) for name, run in runs.items()}}
    with every_core_busy():
        result["loaded"] = {name: figures(run(count)) for name, run in runs.items()}
    slot_bytes = int(np.prod(SHAPE))
    print(json.dumps({**surroundings(), "slot_bytes": slot_bytes, "hop_us": result}, indent=2))


def in_threads(num_frames: int) -> list[float]:
    """Writer and reader in one process."""
    address, seen = f"inproc://hops-{os.getpid()}", list[float]()
    context, desk = zmq.Context(), PoolDesk()
    reader = threading.Thread(target=lambda: seen.extend(read(context, address, desk)))
    reader.start()
    write(context, address, desk, num_frames)
    reader.join()
    context.term()
    desk.close()
    return seen


def in_two(num_frames: int) -> list[float]:
    """The reader in a process of its own, as a fork that shares the pools' descriptors."""
    address, desk = f"ipc://@sightline-hops-{os.getpid()}-{time.monotonic_ns()}", PoolDesk()
    pool = Pools(desk).create("yard/images", SHAPE, np.dtype(np.uint8), LINK.depth)

    def send() -> None:
        context = zmq.Context()
        write(context, address, desk, num_frames, pool)
        context.term()

    seen = forked(lambda: read(zmq.Context(), address, desk), send)
    desk.close()
    return seen


def forked(take: Callable[[], list[float]], send: Callable[[], None]) -> list[float]:
    """What `take` returns in a process of its own, while this one sends."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "seen.json"
        if os.fork() == 0:
            told.write_text(json.dumps(take()))
            os._exit(0)
        send()
        os.wait()
        return list(json.loads(told.read_text()))


def bare_in_threads(num_frames: int) -> list[float]:
    """A message with the time it was sent, from a DEALER to a ROUTER in another thread."""
    context, address, seen = zmq.Context(), "inproc://bare", list[float]()
    router = context.socket(zmq.ROUTER)
    router.bind(address)
    reader = threading.Thread(target=lambda: seen.extend(bare_read(router, num_frames)))
    reader.start()
    bare_write(context, address, num_frames)
    reader.join()
    context.term()
    return seen


def bare_in_two(num_frames: int) -> list[float]:
    """The same between two processes."""
    address = f"ipc://@sightline-bare-{os.getpid()}-{time.monotonic_ns()}"

    def take() -> list[float]:
        router = zmq.Context().socket(zmq.ROUTER)
        router.bind(address)
        return bare_read(router, num_frames)

    def send() -> None:
        context = zmq.Context()
        bare_write(context, address, num_frames)
        context.term()

    return forked(take, send)


def bare_read(router: Any, num_messages: int) -> list[float]:
    """Microseconds of each message."""
    seen = []
    for _ in range(num_messages):
        router.poll()
        seen.append((time.monotonic_ns() - int.from_bytes(router.recv_multipart()[1])) / 1000)
    router.close()
    return seen


def bare_write(context: Any, address: str, num_messages: int) -> None:
    """Send messages of 100 bytes at a steady rate."""
    dealer = context.socket(zmq.DEALER)
    dealer.connect(address)
    for _ in range(num_messages):
        dealer.send(time.monotonic_ns().to_bytes(100))
        time.sleep(PAUSE_S)
    dealer.close()


def read(context: Any, address: str, desk: PoolDesk) -> list[float]:
    """Receive until the end; microseconds from send to picture of each frame."""
    seen = []
    with stage(context, "reader", desk, inlets={LINK.name: (LINK, address)}, routes={}) as ports:
        while isinstance(message := (delivery := ports.receive(LINK.name)).message, Frame):
            picture = ports.pools.view(message.image)
            seen.append((time.monotonic_ns() - message.captured_ns) / 1000)
            assert picture[0, 0, 0, 0] == message.frame_index % 256
            delivery.acknowledge()
        delivery.acknowledge()
    return seen


def write(context: Any, address: str, desk: PoolDesk, num_frames: int, pool: Any = None) -> None:
    """Send frames at a steady rate, then the end."""
    route = Route(link=LINK, addresses=lambda _: [address])
    with stage(context, "writer", desk, inlets={}, routes={LINK.name: route}) as ports:
        if pool is None:
            pool = ports.pools.create("yard/images", SHAPE, np.dtype(np.uint8), LINK.depth)
        for index in range(num_frames):
            lease = ports.lease(pool)
            lease.array[0, 0, 0, 0] = index % 256
            clocks = {"pts_ns": 0, "duration_ns": 1, "captured_ns": time.monotonic_ns()}
            frame = Frame(
                stream="yard",
                frame_index=index,
                image=lease.slot,
                canvas_hw=SHAPE[1:3],
                source_hw=(1, 1),
                regions=(Region.whole((1, 1)),),
                part=Part(picture_hw=(1, 1)),
                **clocks,
            )
            ports.send(LINK.name, frame, lease=lease)
            until_s = time.monotonic() + PAUSE_S
            while (left_s := until_s - time.monotonic()) > 0:
                ports.wait(max(1, int(left_s * 1000)))
        ports.send(LINK.name, Ended(stream="yard", frame_index=num_frames, complete=True))
        ports.drain()


@contextmanager
def stage(context: Any, name: str, desk: PoolDesk, **links: Any) -> Iterator[Ports]:
    """The ports of a stage that stands alone."""
    control = ControlDesk(context, f"inproc://control-{name}-{time.monotonic_ns()}")
    line = ControlLine(context, control.socket.LAST_ENDPOINT.decode().rstrip("\0"), name)
    ports = Ports(context, name, line, Pools(desk), **links)
    try:
        yield ports
    finally:
        ports.close()
        line.close()
        control.close()


@contextmanager
def every_core_busy() -> Iterator[None]:
    """As many processes that compute as there are cores."""
    busy = [multiprocessing.Process(target=compute, daemon=True) for _ in os.sched_getaffinity(0)]
    for process in busy:
        process.start()
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.join()


def compute() -> None:
    """Multiply for ever."""
    numbers = np.ones((200, 200), np.float32)
    while True:
        numbers @ numbers


def figures(seen_us: list[float]) -> dict[str, float]:
    """Median and tail, without the first frames."""
    kept = sorted(seen_us[WARM_UP:])
    cuts = quantiles(kept, n=100)
    named = {"median": cuts[49], "p90": cuts[89], "p99": cuts[98]}
    return {name: round(value, 1) for name, value in named.items()}


if __name__ == "__main__":
    main()
