"""The whole path where a GPU looks at frames: what it carries, and which part is slow.

    python tests/benchmarks/bench_cuda_path.py --weights t.safetensors --clip clip.mp4
    python tests/benchmarks/bench_cuda_path.py --weights t.safetensors --decoded frames.npz

With a clip: frames a second of 1, 4 and 8 files side by side, tracks only, then the most cameras
that play it whose tracks are there within a time. With `--decode nvdec` all of it twice: first with
pictures that come to the host and go back, then with pictures that stay where they were decoded.
With decoded pictures, NV12 arrays `rows W` in an .npz, nothing is decoded or tracked, and PyAV is
not needed: the pictures are put into slots as decoders do, at a rate or as fast as slots come free.
Engine, batches, suppression and credits are the pipeline's own.

How busy the GPU is comes from `nvidia-smi`; how busy a thread of Python is, from its own counts.
With a GPU this has never run; `--engine` names another to try the program with.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any
from unittest.mock import patch

import numpy as np
import zmq

sys.path.insert(0, str(Path(__file__).parents[2]))  # called by its path

from model.card import read_card
from model.config import ModelConfig, Suppression
from model.cuda.coded import Coded
from model.cuda.device import Event
from model.engines import build_engine
from model.engines.build import choose_engine
from model.engines.contract import Takes
from model.letterbox import rectangle
from model.slicing import Region
from pipeline.bench.surroundings import percentile
from pipeline.config import GpuConfig, OutputConfig, PipelineConfig, TrackingConfig
from pipeline.engines import ForCanvases, ForCoded, takes_here
from pipeline.host import Assignment, Host, Surroundings
from pipeline.messages import Found, Frame, Part, Predictions
from pipeline.models import ModelInUse
from pipeline.stages.infer import Infer
from pipeline.stages.suppress import Suppress
from pipeline.topology import Addresses, Graph, Link, Stage
from pipeline.transport.control import Close, EngineBuilt, Failed, Finished
from pipeline.transport.devicepool import DevicePools
from pipeline.transport.memory import PoolDesk, Pools
from pipeline.transport.ports import Ports
from pipeline.trunk import Trunk

WINDOW = 8
FRAMES = Link("frames", Frame, depth=WINDOW, window=WINDOW, resend=True)
PREDICTIONS = Link("predictions", Predictions, depth=64)
FOUND = Link("found", Found, depth=64)
_TICK_S = 0.004
_SETTLE_S = 2.0


def main() -> None:
    """Run and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--clip", type=Path)
    what.add_argument("--decoded", type=Path)
    parser.add_argument("--engine", default="cuda")
    parser.add_argument("--decode", choices=["cpu", "nvdec"], default="cpu")
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument("--files", type=int, nargs="*", default=[1, 4, 8])
    parser.add_argument("--streams", type=int, nargs="*", default=[8, 32])
    parser.add_argument("--rate", type=float, default=0, help="of decoded streams; 0: no limit")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--max-latency", type=float, default=0.1)
    options = parser.parse_args()
    measure = of_clip if options.clip else of_decoded
    print(json.dumps(measure(options), indent=2))


def of_clip(options: argparse.Namespace) -> dict[str, Any]:
    """Files, then cameras, once for each way that pictures may go."""
    from pipeline.bench.surroundings import surroundings

    if options.decode == "cpu":
        return {**surroundings(), **_of_clip(options)}
    with _by_the_host():
        host = _of_clip(options)
    with _counting() as stayed:
        device = _of_clip(options)
    return {**surroundings(), "by the host": host, "on the device": {**device, **stayed}}


@contextmanager
def _by_the_host() -> Iterator[None]:
    """Within it, no decoder hears of an engine that reads pictures on the GPU."""
    with patch.object(DevicePools, "offer"):
        yield


@contextmanager
def _counting() -> Iterator[Counter[str]]:
    """Counts within it how many pictures really stayed on the GPU."""
    from pipeline.decoding.surface import Surface

    stayed, copy_to = Counter(stayed=0), Surface.copy_to

    def counted(surface: Surface, coded: Coded, address: int) -> Event:
        stayed["stayed"] += 1
        return copy_to(surface, coded, address)

    with patch.object(Surface, "copy_to", counted):
        yield stayed


def _of_clip(options: argparse.Namespace) -> dict[str, Any]:
    from pipeline.bench.streams import most_streams
    from pipeline.decoding.inputs import find_sources

    (source,) = find_sources([str(options.clip)])
    config = _config(options)
    files = [_files(config, options, count) for count in options.files]
    streams = {}
    if options.streams:
        streams = most_streams(
            config,
            source,
            counts=options.streams,
            max_latency_s=options.max_latency,
            seconds=options.seconds,
        )
    return {"files": files, "streams": streams}


def _config(options: argparse.Namespace, **more: Any) -> PipelineConfig:
    model = ModelConfig(
        weights=options.weights, engine=options.engine, image_size=options.image_size
    )
    return PipelineConfig(model=model, gpu=GpuConfig(decode=options.decode), **more)


def _files(config: PipelineConfig, options: argparse.Namespace, count: int) -> dict[str, Any]:
    """So many copies of the clip side by side."""
    from pipeline.job import Job

    with tempfile.TemporaryDirectory() as folder:
        copies = [Path(folder) / f"{number}{options.clip.suffix}" for number in range(count)]
        for copy in copies:
            copy.symlink_to(options.clip.resolve())
        output = OutputConfig(directory=Path(folder) / "out")
        config = config.model_copy(update={"output": output, "parallel": count})
        job = Job(config, [str(copy) for copy in copies])
        began_s = time.perf_counter()
        with machine_use() as machine:
            job.run()
        wall_s = time.perf_counter() - began_s
        assert job.complete, [state.reason for state in job.streams]
        summary = job.summary()
    decoded = sum(stream["decoded"] for stream in summary["streams"])
    wall_s -= summary["model"]["build_s"]
    shares = _shares(job.supervisor.usage, wall_s)
    return {
        "files": count,
        "frames_per_s": round(decoded / wall_s, 1),
        "engine": summary["model"]["engine"],
        "precision": summary["model"]["precision"],
        "decoders": sorted({stream["decoder"] for stream in summary["streams"]}),
        "busy": {**shares, **machine},
        "slow_part": slow_part({**shares, **machine}),
    }


def _shares(usage: Mapping[str, Mapping[str, int]], wall_s: float) -> dict[str, float]:
    """Processor time of each kind of stage by the time there was: 1 is a whole core."""
    shares: dict[str, float] = {}
    for worker, used in usage.items():
        kind = worker.partition(" ")[0].partition("#")[0].partition(":")[0]
        shares[kind] = shares.get(kind, 0) + used["cpu_ns"] / 1e9 / wall_s
    return {kind: round(share, 3) for kind, share in shares.items()}


def slow_part(busy: Mapping[str, float | None]) -> str:
    """What is nearest to its limit: a thread that there is one of, the GPU, or all cores."""
    limited = ("infer", "suppress", "feed", "gpu", "nvdec", "cores")
    return max(limited, key=lambda name: busy.get(name) or 0.0)


@contextmanager
def machine_use() -> Iterator[dict[str, float | None]]:
    """Fills in how busy all cores were with this process, and the GPU and its decoder.

    Those are None where nobody can tell.
    """
    use: dict[str, float | None] = {}
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    with _gpu_use() as gpu:
        yield use
    spent_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    use["cores"] = round(cpu_s / spent_s / len(os.sched_getaffinity(0)), 3)
    use.update(gpu)


@contextmanager
def _gpu_use() -> Iterator[dict[str, float | None]]:
    use: dict[str, float | None] = {"gpu": None, "nvdec": None}
    query = "--query-gpu=utilization.gpu,utilization.decoder"
    try:
        asked = subprocess.Popen(
            ["nvidia-smi", query, "--format=csv,noheader,nounits", "-lms", "200"],
            stdout=subprocess.PIPE,
            text=True,
        )
    except OSError:
        yield use
        return
    try:
        yield use
    finally:
        asked.terminate()
        said, _ = asked.communicate()
        rows = [line.split(",") for line in said.splitlines() if line.count(",") == 1]
        for column, name in enumerate(use):
            values = [float(row[column]) for row in rows if row[column].strip().isdecimal()]
            use[name] = round(mean(values) / 100, 3) if values else None


def of_decoded(options: argparse.Namespace) -> dict[str, Any]:
    """The trunk alone, fed with decoded pictures."""
    pictures = list(np.load(options.decoded).values())
    config = _config(options)
    takes = takes_here(config, read_card(options.weights))
    runs = [_trunk(config, takes, pictures, options, count) for count in options.streams]
    engine = choose_engine(config.model.engine, read_card(options.weights))
    return {"engine": engine, "rate": options.rate or None, "streams": runs}


class Feed:
    """Stands for the decoders of many streams, and for their trackers."""

    def __init__(
        self, takes: Takes, pictures: Sequence[np.ndarray], options: argparse.Namespace, count: int
    ) -> None:
        self.latencies_ms: list[float] = []
        self.num_missed = 0
        """Frames that found no free slot in time."""
        self._takes = takes
        self._pictures = pictures
        self._rate = options.rate
        self._image_size = options.image_size
        self._seconds = options.seconds
        self._streams = [f"stream{number}" for number in range(count)]
        self._sent = dict.fromkeys(self._streams, 0)

    def run(self, ports: Ports) -> tuple[str, ...]:
        """Feed for the time that was asked for, after the engine has answered."""
        rows, width = self._pictures[0].shape
        source_hw = (rows * 2 // 3, width)
        self._make = partial(self._frame, source_hw, rectangle(source_hw, self._image_size))
        shape = self._shape(source_hw)
        pools = {
            stream: ports.pools.create(f"{stream}/images", shape, np.dtype(np.uint8), WINDOW)
            for stream in self._streams
        }
        self._send(ports, pools, self._streams[0])
        self._read(ports, None)  # the engine is built
        began_s = time.monotonic()
        due_s = dict.fromkeys(self._streams, began_s)
        with _ticks() as wake:
            while (now_s := time.monotonic()) < began_s + _SETTLE_S + self._seconds:
                for stream in self._streams:
                    if now_s >= due_s[stream]:
                        self._feed(ports, pools, stream)
                        due_s[stream] += 1 / self._rate if self._rate else 0
                if now_s < began_s + _SETTLE_S:
                    self.latencies_ms.clear()
                    self.num_missed = 0
                self._read(ports, wake)
        return ()

    def _feed(self, ports: Ports, pools: Mapping[str, Any], stream: str) -> None:
        """One frame of a stream with a rate; else as many as there are slots for."""
        while pools[stream].num_held < WINDOW and ports.can_send("frames", stream):
            self._send(ports, pools, stream)
            if self._rate:
                return
        self.num_missed += bool(self._rate)

    def _send(self, ports: Ports, pools: Mapping[str, Any], stream: str) -> None:
        lease = pools[stream].lease()
        picture = self._pictures[self._sent[stream] % len(self._pictures)]
        lease.array.reshape(-1)[: picture.size] = picture.reshape(-1)[: lease.array.size]
        ports.send("frames", self._make(stream, lease.slot), lease=lease)
        self._sent[stream] += 1

    def _frame(
        self, source_hw: tuple[int, int], canvas_hw: tuple[int, int], stream: str, slot: Any
    ) -> Frame:
        now_ns = time.monotonic_ns()
        return Frame(
            stream=stream,
            frame_index=self._sent[stream],
            pts_ns=0,
            duration_ns=1,
            captured_ns=now_ns,
            image=slot,
            canvas_hw=canvas_hw,
            coded=_nv12(source_hw) if self._takes == "coded" else None,
            source_hw=source_hw,
            regions=(Region.whole(source_hw),),
            part=Part(picture_hw=source_hw),
            expires_ns=now_ns + 1_000_000_000 if self._rate else None,
        )

    def _shape(self, source_hw: tuple[int, int]) -> tuple[int, ...]:
        if self._takes == "coded":
            return (_nv12(source_hw).num_bytes,)
        return (1, *rectangle(source_hw, self._image_size), 3)

    def _read(self, ports: Ports, wake: int | None) -> None:
        delivery = ports.receive("found", wake=wake)
        if delivery is None:
            assert wake is not None
            with suppress(BlockingIOError):  # not every return is because of it
                os.eventfd_read(wake)
            return
        message = delivery.message
        if isinstance(message, Found):
            self.latencies_ms.append((time.monotonic_ns() - message.captured_ns) / 1e6)
        else:
            self.num_missed += 1
        delivery.acknowledge()


def _nv12(source_hw: tuple[int, int]) -> Coded:
    height, width = source_hw
    return Coded(
        pixel_format="nv12",
        coded_hw=source_hw,
        offsets=(0, height * width),
        pitches=(width, width),
        matrix="bt709",
        full_range=False,
        upright_hw=source_hw,
        num_bytes=height * width * 3 // 2,
    )


@contextmanager
def _ticks() -> Iterator[int]:
    """A descriptor that becomes readable again and again."""
    descriptor, over = os.eventfd(0, os.EFD_NONBLOCK), threading.Event()

    def tick() -> None:
        while not over.wait(_TICK_S):
            os.eventfd_write(descriptor, 1)

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        yield descriptor
    finally:
        over.set()
        thread.join()
        os.close(descriptor)


def _trunk(
    config: PipelineConfig,
    takes: Takes,
    pictures: Sequence[np.ndarray],
    options: argparse.Namespace,
    count: int,
) -> dict[str, Any]:
    """So many streams through infer and suppress, in threads of this process."""
    floor = Suppression(min_score=TrackingConfig().low_score)
    build = ForCanvases(build_engine)
    feed = Feed(takes, pictures, options, count)
    errand = Trunk(model=ModelInUse(config=config.model))
    make = ForCoded(build_engine, GpuConfig(), floor, None) if takes == "coded" else build
    stages = (
        Stage("feed", "trunk", (FOUND,), (FRAMES,), lambda _: feed),
        Stage("infer", "trunk", (FRAMES,), (PREDICTIONS,), lambda _: Infer(make, errand)),
        Stage("suppress", "trunk", (PREDICTIONS,), (FOUND,), lambda _: Suppress(floor, None)),
    )
    with machine_use() as machine:
        usage, engine = _run(stages)
    shares = _shares(usage, options.seconds + _SETTLE_S)
    found = feed.latencies_ms
    return {
        "streams": count,
        "engine": engine,
        "frames_per_s": round(len(found) / options.seconds, 1),
        "p50_ms": found and round(percentile(found, 0.5), 2),
        "p95_ms": found and round(percentile(found, 0.95), 2),
        "missed": feed.num_missed,
        "busy": {**shares, **machine},
        "slow_part": slow_part({**shares, **machine}),
    }


def _run(stages: tuple[Stage, ...]) -> tuple[dict[str, Mapping[str, int]], str]:
    """Run the stages until the first is done; where their time went, and what looked."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    desk = PoolDesk()
    graph = Graph(stages, ())
    around = Surroundings(context, Addresses(f"inproc://{uuid.uuid4().hex}"), graph, Pools(desk))
    host = Host(around)
    for stage in stages:
        host.start(Assignment(stage=stage.name))
    usage: dict[str, Mapping[str, int]] = {}
    engine = ""
    while host.working:
        host.pollable.poll(1000)
        for worker, report in host.hear():
            assert not isinstance(report, Failed), report.message
            if isinstance(report, EngineBuilt):
                engine = f"{report.name} {report.precision}"
            if isinstance(report, Finished):
                usage[worker] = report.usage
                if worker == stages[0].name:
                    for other in host.working:
                        host.tell(other, Close())
    host.close()
    context.term()
    desk.close()
    return usage, engine


if __name__ == "__main__":
    main()
