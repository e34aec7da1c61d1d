"""How soon a camera that comes back is tracked again.

    python tests/benchmarks/bench_recovery.py [--weights t.safetensors] [--clip people.mp4]

A camera is switched off and on many times while a run follows it. The time counts from the moment
the restarted camera listens, its first picture a keyframe, to the first tracked frame captured
after that. Without weights, an engine that takes 5 ms.
"""

import argparse
import json
import random
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from live import BuildTimed, make_camera, percentile, timed_card
from timing import surroundings

import pipeline.job
from model.config import ModelConfig
from pipeline.config import PipelineConfig
from pipeline.job import Job
from pipeline.messages import Tracked
from pipeline.tracking.tracks import Tracks

SERVICE_S = 0.005
STEADY_FRAMES = 25
LIMIT_S = 60.0


def main() -> None:
    """Follow a camera through its outages and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--clip", type=Path, help="what the camera shows; moving squares if not")
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--outages", type=int, default=20)
    parser.add_argument("--most-off-s", type=float, default=6.0, help="longest time switched off")
    parser.add_argument("--placement", choices=("threads", "processes"), default="threads")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(options, Path(folder)), indent=2))


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run one job through all outages."""
    camera = make_camera(options.clip, folder, options.size)
    weights = options.weights
    if weights is None:
        weights = timed_card(folder)
        pipeline.job.build_engine = BuildTimed(SERVICE_S)
    config = PipelineConfig(model=ModelConfig(weights=weights), placement=options.placement)
    watch = Watch()
    job = Job(config, [camera.address()], take=watch.take)
    outages = Outages(options, camera, watch, job)
    camera.on()
    thread = threading.Thread(target=outages.work)
    thread.start()
    try:
        job.run()
    finally:
        outages.over = True
        thread.join()
        camera.off()
    times = outages.seconds
    return {
        **surroundings(),
        "camera": f"{type(camera).__name__}, {options.size}",
        "engine": "timed" if options.weights is None else job.summary()["model"]["engine"],
        "placement": options.placement,
        "outages": options.outages,
        "recovered": len(times),
        "recovery_s": {
            "median": percentile(times, 0.5),
            "p95": percentile(times, 0.95),
            "max": percentile(times, 1),
        }
        if times
        else None,
        "each_s": [[round(off_s, 2), round(seconds, 3)] for off_s, seconds in outages.pairs],
        "target_p95_s": 3.0,
        "reason": job.streams[0].reason or None,
    }


class Watch:
    """Counts tracked frames and knows the last one's capture time."""

    def __init__(self) -> None:
        self.count = 0
        self.captured_s = 0.0
        self._changed = threading.Condition()

    def take(self, frame: Tracked, _: Tracks) -> None:
        with self._changed:
            self.count += 1
            self.captured_s = frame.captured_ns / 1e9
            self._changed.notify_all()

    def wait_for_count(self, count: int) -> bool:
        """Wait until so many frames are tracked in all."""
        with self._changed:
            return self._changed.wait_for(lambda: self.count >= count, LIMIT_S)

    def wait_for_capture(self, since_s: float) -> bool:
        """Wait until a frame is tracked that was captured after this time."""
        with self._changed:
            return self._changed.wait_for(lambda: self.captured_s > since_s, LIMIT_S)


class Outages:
    """Switches the camera off and on and takes the time, beside the run."""

    def __init__(self, options: argparse.Namespace, camera: Any, watch: Watch, job: Job) -> None:
        self.over = False
        self.pairs: list[tuple[float, float]] = []
        """Time off and time to recover."""
        self._options = options
        self._camera = camera
        self._watch = watch
        self._job = job
        self._random = random.Random(7)

    @property
    def seconds(self) -> list[float]:
        return [seconds for _, seconds in self.pairs]

    def work(self) -> None:
        try:
            for _ in range(self._options.outages):
                if self.over or not self._watch.wait_for_count(self._watch.count + STEADY_FRAMES):
                    return
                off_s = self._random.uniform(0.2, self._options.most_off_s)
                self._camera.off()
                time.sleep(off_s)
                self._camera.on()
                offered_s = time.monotonic()
                if not self._watch.wait_for_capture(offered_s):
                    return
                self.pairs.append((off_s, time.monotonic() - offered_s))
        finally:
            self._job.stop()


if __name__ == "__main__":
    main()
