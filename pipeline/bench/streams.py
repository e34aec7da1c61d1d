# SPDX-License-Identifier: Apache-2.0
"""How many live streams this machine carries: one file played as so many cameras.

A number of streams is carried if the 95th percentile of the time from capture to tracks stays
under a limit and hardly a frame is lost; latency alone says little, as frames that are late are
dropped before they cost anything.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from model.letterbox import rectangle
from pipeline.bench.surroundings import percentile, surroundings
from pipeline.config import PipelineConfig
from pipeline.decoding.inputs import Source
from pipeline.decoding.media import MediaFacts, MediaReader
from pipeline.errors import PipelineError
from pipeline.job import Job, builder_of
from pipeline.messages import CodecParameters, Tracked
from pipeline.metrics import Counter, CounterTable
from pipeline.models import ModelInUse
from pipeline.tracking.tracks import Tracks

MOST_LOST = 0.01
"""Share of the frames that a number of streams may lose and still be carried."""
_SETTLE_S = 2.0
_START_S = 15.0
_LOST: tuple[Counter, ...] = ("dropped_late", "dropped_overload", "late_packets")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What so many streams got."""

    streams: int
    frames_per_s: float
    """Tracked, of all streams."""
    p50_s: float | None
    """From reading a packet to the tracks of its frame; None where there were none."""
    p95_s: float | None
    lost: float
    """Share of the frames that were given up."""
    evenness: float
    """Frames of the stream that got fewest over those of the one that got most."""
    carried: bool
    devices: int = 1
    """Accelerators that looked at them."""


def most_streams(
    config: PipelineConfig,
    source: Source,
    *,
    counts: Sequence[int],
    max_latency_s: float,
    seconds: float,
    on_trial: Callable[[Trial], None] = lambda _: None,
) -> dict[str, Any]:
    """Try each of `counts`, then search for the highest number that is carried.

    Raises:
        PipelineError: the file cannot be played.
        ModelError: the weights or the settings are not as they must be.
    """
    facts = _facts(source)
    parameters = facts.parameters
    _warm(config, parameters)
    trials: list[Trial] = []
    for count in _search(counts, trials):
        trials.append(run_streams(config, source, count, max_latency_s, seconds))
        on_trial(trials[-1])
    carried = [trial.streams for trial in trials if trial.carried]
    return {
        **surroundings(),
        "clip": f"{parameters.width}x{parameters.height} {parameters.codec}, "
        f"{facts.frame_rate:g} frames/s",
        "placement": config.placement,
        "max_latency_s": max_latency_s,
        "most_lost": MOST_LOST,
        "seconds": seconds,
        "most_streams": max(carried, default=0),
        "trials": [asdict(trial) for trial in sorted(trials, key=lambda trial: trial.streams)],
    }


def run_streams(
    config: PipelineConfig, source: Source, count: int, max_latency_s: float, seconds: float
) -> Trial:
    """Play the file as `count` cameras for some seconds after they have settled."""
    log = _Log(seconds)

    def take(frame: Tracked, _: Tracks) -> None:
        log.note(frame.stream, frame.captured_ns)

    job = Job(config, [f"replay:{source.location}"] * count, take=take)
    log.job = job
    job.run(log.on_tick)
    if faults := [state.fault for state in job.streams if state.fault]:
        raise PipelineError("; ".join(dict.fromkeys(faults)))
    latencies = [late for each in log.latencies_s.values() for late in each]
    got = [len(log.latencies_s[stream.name]) for stream in job.sources]
    lost = log.lost / max(1, log.lost + len(latencies))
    p50_s, p95_s = (percentile(latencies, share) if latencies else None for share in (0.5, 0.95))
    return Trial(
        streams=count,
        frames_per_s=round(len(latencies) / log.elapsed_s, 1),
        p50_s=p50_s and round(p50_s, 3),
        p95_s=p95_s and round(p95_s, 3),
        lost=round(lost, 4),
        evenness=round(min(got) / max(1, *got), 3),
        carried=p95_s is not None and p95_s <= max_latency_s and lost <= MOST_LOST,
        devices=len(job.supervisor.devices()),
    )


@dataclass(slots=True)
class _Log:
    """What came out between the settling and the end."""

    seconds: float
    job: Job | None = None
    latencies_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    began_s: float = field(default_factory=time.monotonic)
    first_s: float | None = None
    """When every stream had been seen, or should have been."""
    elapsed_s: float = 0.0
    lost: int = 0
    over: bool = False
    _open_s: float | None = None
    _lost_before: int = 0

    def note(self, stream: str, captured_ns: int) -> None:
        """A frame's tracks are there; called from the streams' own threads."""
        latencies = self.latencies_s[stream]
        if self._open_s is not None and not self.over:
            latencies.append((time.monotonic_ns() - captured_ns) / 1e9)

    def on_tick(self) -> None:
        """Open the window once all streams run, and close it."""
        assert self.job is not None
        now_s = time.monotonic()
        if self.first_s is None:
            seen = len(self.latencies_s) == len(self.job.sources)
            if seen or now_s > self.began_s + _START_S:  # too many streams: some get nothing
                self.first_s = now_s
        elif self._open_s is None:
            if now_s >= self.first_s + _SETTLE_S:
                self._lost_before = _lost(self.job.counters)
                self._open_s = now_s
        elif not self.over and now_s >= self._open_s + self.seconds:
            self.over = True
            self.elapsed_s = now_s - self._open_s
            self.lost = _lost(self.job.counters) - self._lost_before
            self.job.stop()


def _lost(counters: CounterTable) -> int:
    return sum(each[name] for each in counters.values() for name in _LOST)


def _search(counts: Sequence[int], trials: Sequence[Trial]) -> Iterator[int]:
    """The counts as given; then ever more, and the middle between carried and not."""
    yield from counts
    while True:
        low = max((trial.streams for trial in trials if trial.carried), default=0)
        failed = [trial.streams for trial in trials if not trial.carried]
        if not failed:
            yield 2 * low
        elif min(failed) - low > 1:
            yield (low + min(failed)) // 2
        else:
            return


def _facts(source: Source) -> MediaFacts:
    reader = MediaReader(source)
    reader.close()
    return reader.facts


def _warm(config: PipelineConfig, parameters: CodecParameters) -> None:
    """Have the engine in the cache, so that no trial waits for it to be built."""
    height, width = parameters.height, round(parameters.width * parameters.pixel_aspect)
    upright = (width, height) if round(parameters.rotation_deg / 90) % 2 else (height, width)
    image_hw = rectangle(upright, config.model.image_size)
    builder_of(config)(ModelInUse(config=config.model), image_hw=image_hw, batch=1).close()
