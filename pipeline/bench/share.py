# SPDX-License-Identifier: Apache-2.0
"""The pipeline against its bound: what all cores would do if stages cost what they cost alone.

The bound is `cores / sum of processor seconds a frame` of the stages at their best; queues, the
interpreter and cores that wait are what lies between.
"""

import os
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.bench.material import gather
from pipeline.bench.stages import cpu_ms, stages
from pipeline.bench.surroundings import spread, surroundings
from pipeline.config import PipelineConfig
from pipeline.decoding.inputs import Source
from pipeline.errors import PipelineError
from pipeline.job import Job, builder_of
from pipeline.metrics import Counters

WARM_UP = 30
"""Frames before the steady state."""
_LOOK_S = 0.003
_BUSY = 0.9  # of all cores, from which on the machine is the limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run through the pipeline, from the warm-up to the last frame."""

    frames_per_s: float
    cpu_ms: float
    """Processor time a frame, of all threads of this process."""
    stages: dict[str, dict[str, float]]
    """Milliseconds a frame of each stage's thread."""
    engine: dict[str, Any]


def measure(config: PipelineConfig, source: Source, runs: int) -> dict[str, Any]:
    """Alternate the stages alone with the whole pipeline; medians of each.

    Raises:
        PipelineError: the file cannot be read, or is too short.
        ModelError: the weights or the settings are not as they must be.
    """
    material = gather(config, source, builder_of(config))
    alone: list[dict[str, float]] = []
    whole: list[Run] = []
    with tempfile.TemporaryDirectory() as folder:
        works = stages(material, Path(folder))
        for _ in range(runs):
            alone.append({name: cpu_ms(work) for name, work in works.items()})
            whole.append(through_pipeline(config, source, Path(folder) / "out"))
    material.close()
    cores = len(os.sched_getaffinity(0))
    sums = [sum(each.values()) for each in alone]
    in_processes = config.placement == "processes"
    return {
        **surroundings(),
        "clip": _clip(material.facts.parameters.codec, material.source_hw, config),
        "outputs": "tracks and annotated MP4" if config.output.save_video else "tracks",
        "placement": config.placement,
        "model": whole[-1].engine,
        "alone_cpu_ms": {name: spread([each[name] for each in alone]) for name in works},
        "bound": {
            "cpu_ms": spread(sums),
            "frames_per_s": spread([cores / each * 1000 for each in sums]),
        },
        "pipeline": {
            "frames_per_s": spread([run.frames_per_s for run in whole]),
            "share_of_bound": spread(
                [
                    run.frames_per_s * each / cores / 1000
                    for run, each in zip(whole, sums, strict=True)
                ]
            ),
            # other processes' time is not seen here
            "cpu_ms": None if in_processes else spread([run.cpu_ms for run in whole]),
            "share_of_cores": None
            if in_processes
            else spread([run.frames_per_s * run.cpu_ms / cores / 1000 for run in whole]),
        },
        "stages_ms": _medians([run.stages for run in whole]),
    }


def through_pipeline(config: PipelineConfig, source: Source, folder: Path) -> Run:
    """Run the file once, writing what the settings ask for into `folder`.

    Raises:
        PipelineError: the run failed, or is over before it is warm.
    """
    output = config.output.model_copy(update={"directory": folder, "overwrite": True})
    job = Job(config.model_copy(update={"output": output}), [source.location])
    counters = job.counters[source.name]
    watch = Watch(counters, pictures=config.output.save_video)
    with watch:
        job.run()
    if not job.complete:
        raise PipelineError(job.fault or "; ".join(state.fault for state in job.streams))
    rate, cpu = watch.steady()
    summary = job.summary()
    num_frames = counters["decoded"]
    return Run(
        frames_per_s=rate,
        cpu_ms=cpu,
        stages={
            worker.split(":")[0]: {
                name: round(usage[column] / num_frames * 1000, 3)
                for name, column in _COLUMNS.items()
            }
            for worker, usage in summary["stages"].items()
        },
        engine={key: value for key, value in summary["model"].items() if key != "weights"},
    )


_COLUMNS = {
    "work": "work_s",
    "waiting_before": "waiting_for_input_s",
    "waiting_after": "waiting_for_credit_s",
    "thread_cpu": "thread_cpu_s",
}


class Watch:
    """Notes when how many frames were done."""

    def __init__(self, counters: Counters, *, pictures: bool) -> None:
        self._counters = counters
        self._pictures = pictures
        self._marks: list[tuple[float, float, int]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def steady(self) -> tuple[float, float]:
        """Frames a second and processor milliseconds a frame, from the warm-up to the last frame.

        Raises:
            PipelineError: there were too few frames.
        """
        last = self._marks[-1][2]
        began = next((mark for mark in self._marks if mark[2] >= WARM_UP), self._marks[-1])
        ended = next(mark for mark in self._marks if mark[2] == last)
        num_frames = ended[2] - began[2]
        if num_frames < WARM_UP:
            raise PipelineError(
                f"too short: {last} frames were done, and {2 * WARM_UP} are the least to measure by"
            )
        cpu = (ended[1] - began[1]) / num_frames * 1000
        return num_frames / (ended[0] - began[0]), cpu

    def _look(self) -> None:
        done = -1
        while True:
            over = self._over.wait(_LOOK_S)
            now = self._counters["pictures"] if self._pictures else self._counters.num_settled
            if now != done:
                self._marks.append((time.perf_counter(), time.process_time(), now))
                done = now
            if over:
                return


def slow_part(result: dict[str, Any]) -> str:
    """Which part limits the rate, in a sentence."""
    pipeline, alone = result["pipeline"], result["alone_cpu_ms"]
    total = result["bound"]["cpu_ms"]["median"]
    dearest = max(alone, key=lambda name: alone[name]["median"])
    part = f"{dearest} is {alone[dearest]['median'] / total:.0%} of the stages' time"
    share = pipeline["share_of_cores"]
    if share is not None and share["median"] >= _BUSY:
        return f"all cores are at work ({share['median']:.0%}): {part}"
    rate = pipeline["frames_per_s"]["median"]
    threads = {name: times["work"] * rate / 1000 for name, times in result["stages_ms"].items()}
    busiest = max(threads, key=lambda name: threads[name])
    if threads[busiest] >= _BUSY:
        return f"{busiest} works {threads[busiest]:.0%} of the time and the others wait for it"
    return f"no stage is busy all the time, {busiest} most ({threads[busiest]:.0%}); {part}"


def _medians(runs: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    return {
        stage: {
            column: spread([run[stage][column] for run in runs])["median"] for column in columns
        }
        for stage, columns in runs[0].items()
    }


def _clip(codec: str, source_hw: tuple[int, int], config: PipelineConfig) -> str:
    height, width = source_hw
    return f"{width}x{height} {codec}, {config.source.limit} frames"
