"""A 384x640 frame to the trunk and its boxes back: in this process, and over tcp with CURVE.

The engine answers at once and finds nothing, so that only the way is measured. The worker is a
process of its own on this machine; the network of two machines comes on top.

python tests/benchmarks/bench_remote.py
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import zmq
from timing import surroundings

sys.path.insert(0, str(Path(__file__).parents[2]))

from model.config import ModelConfig, Suppression
from model.engines.contract import Done
from model.slicing import Region
from pipeline.config import RemoteConfig, WorkerConfig
from pipeline.host import Assignment, Host, Surroundings
from pipeline.messages import Ended, Found, Frame, Part, Predictions
from pipeline.models import ModelInUse
from pipeline.stages.infer import Infer
from pipeline.stages.remote import Remote
from pipeline.stages.suppress import Suppress
from pipeline.station import Station
from pipeline.topology import Addresses, Graph, Link, Stage
from pipeline.transport.control import Close, Failed, Finished
from pipeline.transport.curve import make_keys, read_keys, read_public
from pipeline.transport.memory import PoolDesk, Pools
from pipeline.transport.ports import Ports
from pipeline.transport.uplink import Uplink
from pipeline.transport.wire import PROTOCOL, Hello, model_facts
from pipeline.trunk import Trunk
from tests.pipeline.scenes import make_card_file

SHAPE = (1, 384, 640, 3)
WINDOW = 8
FRAMES = Link("frames", Frame, depth=WINDOW, window=WINDOW, resend=True)
PREDICTIONS = Link("predictions", Predictions, depth=16)
FOUND = Link("found", Found, depth=WINDOW)


class Nothing:
    """An engine that finds nothing, at once."""

    name, precision, classes, num_requests = "nothing", "none", ("square", "person"), 4
    takes, gives, has_room = "canvases", "predictions", True

    def __init__(self, image_hw: tuple[int, int]) -> None:
        self.input_shape = (1, *image_hw, 3)
        self.output_shape = (1, 6, 32)

    def start(self, images: np.ndarray, predictions: np.ndarray, on_done: Done) -> None:
        """Answer at once."""
        assert images.shape == self.input_shape
        predictions[...] = 0
        on_done(None)

    def close(self) -> None:
        """Nothing to give back."""


def build(_: Any = None, *, image_hw: tuple[int, int], **_more: Any) -> Any:
    """Stands in for `model.engines.build_engine`."""
    return Nothing(image_hw)


class Probe:
    """Sends frames into the trunk and reads the clock when their boxes are back."""

    def __init__(self, runs: int) -> None:
        self.alone_ms: list[float] = []
        self.frames_per_s = 0.0
        self._runs = runs
        self._sent = 0

    def run(self, ports: Ports) -> tuple[str, ...]:
        """Warm up, one at a time, then as many as the window allows."""
        pool = ports.pools.create("probe/images", SHAPE, np.dtype(np.uint8), WINDOW)
        for number in range(self._runs + 50):
            began = time.perf_counter()
            self._send(ports, pool)
            self._read(ports)
            if number >= 50:
                self.alone_ms.append((time.perf_counter() - began) * 1000)
        began = time.perf_counter()
        for _ in range(WINDOW):
            self._send(ports, pool)
        for _ in range(self._runs):
            self._read(ports)
            self._send(ports, pool)
        self.frames_per_s = self._runs / (time.perf_counter() - began)
        return ()

    def _send(self, ports: Ports, pool: Any) -> None:
        lease = ports.lease(pool)
        ports.send(
            "frames",
            Frame(
                stream="probe",
                frame_index=self._sent,
                pts_ns=0,
                duration_ns=1,
                captured_ns=0,
                image=lease.slot,
                canvas_hw=SHAPE[1:3],
                source_hw=(1080, 1920),
                regions=(Region.whole((1080, 1920)),),
                part=Part(picture_hw=(1080, 1920)),
            ),
            lease=lease,
        )
        self._sent += 1

    def _read(self, ports: Ports) -> None:
        delivery = ports.receive("found")
        assert delivery is not None
        assert not isinstance(delivery.message, Ended)
        delivery.acknowledge()


def measure(trunk: tuple[Stage, ...], runs: int) -> dict[str, float]:
    """Run the probe against a trunk."""
    probe = Probe(runs)
    graph = Graph((Stage("probe", "trunk", (FOUND,), (FRAMES,), lambda _: probe), *trunk), ())
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    desk = PoolDesk()
    around = Surroundings(context, Addresses(f"inproc://{uuid.uuid4().hex}"), graph, Pools(desk))
    host = Host(around)
    for stage in graph.stages:
        host.start(Assignment(stage=stage.name))
    while host.working:
        host.pollable.poll(1000)
        for worker, report in host.hear():
            assert not isinstance(report, Failed), report
            if worker == "probe" and isinstance(report, Finished):
                for other in host.working:
                    host.tell(other, Close())
    host.close()
    context.term()
    desk.close()
    percentiles = np.percentile(probe.alone_ms, (50, 90, 99))
    return {
        **{f"p{p}_ms": round(float(v), 3) for p, v in zip((50, 90, 99), percentiles, strict=True)},
        "frames_per_s": round(probe.frames_per_s, 1),
        "runs": runs,
    }


def here(runs: int) -> dict[str, float]:
    """Infer and suppress in threads of this process."""
    return measure(
        (
            Stage(
                "infer",
                "trunk",
                (FRAMES,),
                (PREDICTIONS,),
                lambda _: Infer(build, Trunk(model=ModelInUse(config=ModelConfig()))),
            ),
            Stage(
                *("suppress", "trunk", (PREDICTIONS,), (FOUND,)),
                lambda _: Suppress(Suppression(), None),
            ),
        ),
        runs,
    )


def remote(runs: int, folder: Path) -> dict[str, float]:
    """Infer and suppress behind a station in another process."""
    weights = make_card_file(folder / "card.safetensors")
    for name in ("worker", "client"):
        make_keys(name, folder)
    config = WorkerConfig(
        listen="tcp://127.0.0.1:0",
        key=folder / "worker.key",
        allow=folder / "client.pub",
        model=ModelConfig(weights=weights),
    )
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=serve, args=(config, theirs))
    process.start()
    settings = RemoteConfig(
        address=ours.recv(), server_key=folder / "worker.pub", key=folder / "client.key"
    )
    hello = Hello(
        protocol=PROTOCOL,
        run="bench",
        model=model_facts(weights),
        suppression=Suppression().model_dump(),
        class_ids=None,
    )

    def make(_: str) -> Remote:
        keys, server = read_keys(settings.key), read_public(settings.server_key)
        return Remote(lambda: Uplink(settings, keys, server, hello))

    result = measure((Stage("remote", "trunk", (FRAMES,), (FOUND,), make),), runs)
    process.terminate()
    process.join()
    return result


def serve(config: WorkerConfig, line: Connection) -> None:
    """The other process."""
    station = Station(config, build)
    line.send(station.address)
    station.run()


def main() -> None:
    """Measure in turn and print both as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    ways: dict[str, Callable[[], dict[str, float]]] = {}
    results: dict[str, list[dict[str, float]]] = {"inproc": [], "tcp + CURVE": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            place = Path(folder) / str(number)
            place.mkdir()
            ways = {
                "inproc": lambda: here(options.runs),
                "tcp + CURVE": lambda place=place: remote(options.runs, place),
            }
            for name, way in ways.items():
                results[name].append(way())
    print(json.dumps({**surroundings(), "shape": SHAPE, "results": results}, indent=2))


if __name__ == "__main__":
    main()
