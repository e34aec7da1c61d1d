"""Live streams at more than the machine's capacity: are tracks fresh, and who gets how much?

    python tests/benchmarks/bench_overload.py [--seconds 300] [--weights t.safetensors]

Cameras of 25 frames/s are followed by an engine whose capacity is `1 / overload` of what they
offer. With weights it is the real detector, whose capacity is what the machine gives. Latency is
from the moment a packet was read to the moment its tracks are there.
"""

import argparse
import json
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from live import RATE, BuildTimed, make_camera, percentile, timed_card
from timing import surroundings

import pipeline.job
from model.config import ModelConfig
from pipeline.config import PipelineConfig
from pipeline.job import Job
from pipeline.messages import Tracked
from pipeline.tracking.tracks import Tracks

WARM_UP_S = 5.0
WINDOW_S = 10.0


def main() -> None:
    """Run and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300, help="after 5 s of warming up")
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--overload", type=float, default=2.0, help="offered frames by capacity")
    parser.add_argument("--weights", type=Path, help="the real detector instead of a timed engine")
    parser.add_argument("--clip", type=Path, help="what the cameras show; moving squares if not")
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--window", type=int, help="frames of one stream on their way")
    parser.add_argument("--placement", choices=("threads", "processes"), default="threads")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(options, Path(folder)), indent=2))


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Follow the cameras for the time that was asked for."""
    camera = make_camera(options.clip, folder, options.size)
    weights = options.weights
    service_s = options.overload / (options.streams * RATE)
    if weights is None:
        weights = timed_card(folder)
        pipeline.job.build_engine = BuildTimed(service_s)
    settings: dict[str, Any] = {"model": ModelConfig(weights=weights)}
    if options.window is not None:
        settings["window"] = options.window
    config = PipelineConfig(placement=options.placement, **settings)
    log = Log()
    camera.on()
    job = Job(config, [camera.address()] * options.streams, take=log.take)
    stopped = False

    def tick() -> None:
        nonlocal stopped
        enough = log.began_s and time.monotonic() > log.began_s + WARM_UP_S + options.seconds
        if enough and not stopped:
            stopped = True
            job.stop()

    cpu_s = time.process_time()
    try:
        job.run(tick)
    finally:
        camera.off()
    return {
        **surroundings(),
        "cameras": f"{options.streams} x {type(camera).__name__}, {options.size}, {RATE} frames/s",
        "engine": "timed" if options.weights is None else job.summary()["model"]["engine"],
        "capacity_frames_per_s": round(1 / service_s, 2) if options.weights is None else None,
        "placement": options.placement,
        "window": config.window,
        "seconds": options.seconds,
        "own_cpu_s": round(time.process_time() - cpu_s, 1),
        "complete": job.complete,
        **log.figures(),
        **accounts(job, log),
        "targets": {"latency_p95_s": 0.5, "streams_within": 0.1},
    }


class Log:
    """Notes when each frame's tracks came."""

    def __init__(self) -> None:
        self.began_s = 0.0
        self.tracked: defaultdict[str, int] = defaultdict(int)
        """Frames by stream, after warming up."""
        self._latencies: list[tuple[float, float]] = []
        """Seconds since warm, and seconds from packet to tracks."""

    def take(self, frame: Tracked, _: Tracks) -> None:
        now_s = time.monotonic()
        self.began_s = self.began_s or now_s
        at_s = now_s - self.began_s - WARM_UP_S
        if at_s >= 0:
            self.tracked[frame.stream] += 1
            self._latencies.append((at_s, now_s - frame.captured_ns / 1e9))

    def figures(self) -> dict[str, Any]:
        """Latency over all, by minute, and how it grows."""
        seconds = [latency for _, latency in self._latencies]
        return {
            "frames_per_s": round(len(seconds) / max(self._latencies)[0], 2),
            "latency_s": {
                "median": percentile(seconds, 0.5),
                "p95": percentile(seconds, 0.95),
                "p99": percentile(seconds, 0.99),
                "max": percentile(seconds, 1),
            },
            "latency_p95_s_by_minute": [p95 for _, p95 in self._by(60.0)],
            "latency_p95_slope_ms_per_minute": self._slope(),
        }

    def _by(self, width_s: float) -> list[tuple[float, float]]:
        """The middle and the 95th percentile of each stretch of time."""
        stretches: defaultdict[int, list[float]] = defaultdict(list)
        for at_s, latency in self._latencies:
            stretches[int(at_s // width_s)].append(latency)
        return [
            ((number + 0.5) * width_s, percentile(values, 0.95))
            for number, values in sorted(stretches.items())
        ]

    def _slope(self) -> float | None:
        points = np.array(self._by(WINDOW_S))
        if len(points) < 3:
            return None
        return round(float(np.polyfit(points[:, 0], points[:, 1], 1)[0]) * 60_000, 2)


def accounts(job: Job, log: Log) -> dict[str, Any]:
    """Every frame of every stream, cause by cause, and how even the streams are."""
    streams = {}
    for state in job.streams:
        counters = job.counters[state.source.name]
        accounted = counters["tracked"] + counters.num_skipped + counters.num_dropped
        streams[state.source.name] = {
            **{name: count for name, count in counters.as_dict().items() if count},
            "accounted": accounted == counters["decoded"],
            "tracked_when_warm": log.tracked[state.source.name],
        }
    counts = [log.tracked[state.source.name] for state in job.streams]
    return {
        "accounted": all(stream["accounted"] for stream in streams.values()),
        "least_by_most_tracked": round(min(counts) / max(max(counts), 1), 3),
        "streams": streams,
    }


if __name__ == "__main__":
    main()
