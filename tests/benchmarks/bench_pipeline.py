"""The pipeline against loops in one thread, on one 1080p clip, run by run in turn.

    python tests/benchmarks/bench_pipeline.py --weights t.safetensors --clip people.mp4

Loops: the one tutorials teach (decode to BGR, cv2.resize into a square, float blob, OpenVINO with
default settings, cv2's NMS, ByteTrack); the same with our smallest rectangle for a square; and the
strictest, that rectangle, our own engine, NMS and tracker while FFmpeg decodes ahead on all cores.
All use the same weights, long side and score thresholds, and write nothing. Frames/s are of the
steady state: from the 30th frame on, engines built and warm.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from clips import scaled_clip
from loops import SIDES, run_loop
from timing import spread, surroundings

from model.config import ModelConfig
from pipeline.config import OutputConfig, PipelineConfig
from pipeline.job import Job
from pipeline.messages import Tracked
from pipeline.tracking.tracks import Tracks

WARM_UP = 30


def main() -> None:
    """Run all sides in turn and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--clip", type=Path, required=True, help="a real clip to enlarge")
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clip = scaled_clip(
            options.clip,
            Path(folder) / "clip.mp4",
            width=1920,
            height=1080,
            num_frames=options.frames,
        )
        result = compare(clip, ModelConfig(weights=options.weights), options, Path(folder))
    print(json.dumps(result, indent=2))


def compare(
    clip: Path, model: ModelConfig, options: argparse.Namespace, folder: Path
) -> dict[str, Any]:
    """Alternate the sides; medians of each, and of the ratios within a turn."""
    turns = []
    for _ in range(options.runs):
        pipeline, job = through_pipeline(clip, model)
        turns.append(
            {
                **{name: run_loop(side, model, clip, WARM_UP) for name, side in SIDES.items()},
                "pipeline": pipeline,
                "pipeline_with_mp4": with_video(clip, model, folder),
            }
        )
    cpu_ms = [turn["pipeline"]["cpu_ms"] for turn in turns]
    cores = len(os.sched_getaffinity(0))
    return {
        **surroundings(),
        "clip": f"1920x1080 H.264, {options.frames} frames of {options.clip.name}",
        "precision": job.supervisor.engines[0].precision,
        "frames_per_s": {
            name: spread([turn[name]["frames_per_s"] for turn in turns]) for name in turns[0]
        },
        "pipeline_against": {
            name: spread([t["pipeline"]["frames_per_s"] / t[name]["frames_per_s"] for t in turns])
            for name in SIDES
        },
        "pipeline_cpu_ms_per_frame": spread(cpu_ms),
        "pipeline_share_of_cores": spread(
            [t["pipeline"]["frames_per_s"] * t["pipeline"]["cpu_ms"] / 1000 / cores for t in turns]
        ),
        "loop_ms_per_frame": {
            name: {
                step: spread([turn[name][step] for turn in turns])["median"]
                for step in turns[0][name]
                if step.endswith("_ms")
            }
            for name in SIDES
        },
        "pipeline_last_run_stages": per_frame(job, options.frames),
    }


def through_pipeline(clip: Path, model: ModelConfig) -> tuple[dict[str, float], Job]:
    """The pipeline, tracks only: frames/s and processor time a frame, and the job that ran."""
    times: list[tuple[float, float]] = []

    def take(_: Tracked, __: Tracks) -> None:
        times.append((time.perf_counter(), time.process_time()))

    job = Job(PipelineConfig(model=model), [str(clip)], take=take)
    job.run()
    assert job.complete, job.streams[0].reason
    (began, cpu_began), (ended, cpu_ended) = times[WARM_UP - 1], times[-1]
    count = len(times) - WARM_UP
    rate, cpu_ms = count / (ended - began), (cpu_ended - cpu_began) / count * 1000
    return {"frames_per_s": rate, "cpu_ms": cpu_ms}, job


def with_video(clip: Path, model: ModelConfig, folder: Path) -> dict[str, float]:
    """The pipeline with its files and an annotated MP4; frames/s of the run less its build."""
    output = OutputConfig(directory=folder / "out", save_video=True, overwrite=True)
    job = Job(PipelineConfig(model=model, output=output), [str(clip)])
    job.run()
    state = job.streams[0]
    assert state.complete, state.reason
    decoded = job.counters[state.source.name]["decoded"]
    build_s = sum(engine.build_s for engine in job.supervisor.engines)
    return {"frames_per_s": decoded / (state.elapsed_s - build_s)}


def per_frame(job: Job, frames: int) -> dict[str, dict[str, float]]:
    """Milliseconds a frame of every stage's thread: at work, waiting for input and for credit."""
    return {
        worker.split(":")[0]: {
            name.removesuffix("_s") + "_ms": round(value / frames * 1000, 2)
            for name, value in usage.items()
            if name != "messages"
        }
        for worker, usage in job.summary()["stages"].items()
    }


if __name__ == "__main__":
    main()
