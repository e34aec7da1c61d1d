"""Stages in threads against stages in processes, on one file and on several, run by run in turn.

    python tests/benchmarks/bench_placement.py --weights t.safetensors --clip people.mp4

Frames/s are of the steady state, from the moment an eighth of the frames is tracked until seven
eighths are; seconds are of the whole run, start-up included.
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from clips import scaled_clip
from timing import spread, surroundings

from model.config import ModelConfig
from pipeline.config import OutputConfig, PipelineConfig, Placement
from pipeline.job import Job

PLACEMENTS: tuple[Placement, ...] = ("threads", "processes")


def main() -> None:
    """Run every case in both placements in turn and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--clip", type=Path, required=True, help="a real clip to enlarge to 1080p")
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = scaled_clip(
            options.clip, folder / "0.mp4", width=1920, height=1080, num_frames=options.frames
        )
        for number in range(1, 4):
            shutil.copyfile(clip, folder / f"{number}.mp4")
        cases = {
            "one file": ([clip], False),
            "one file with MP4": ([clip], True),
            "four files, two at once": (sorted(folder.glob("*.mp4")), False),
        }
        result = {
            case: compare(clips, options, folder / "out", save_video=save_video)
            for case, (clips, save_video) in cases.items()
        }
    print(json.dumps({**surroundings(), "clip": "1920x1080 H.264", **result}, indent=2))


def compare(
    clips: list[Path], options: argparse.Namespace, output: Path, *, save_video: bool
) -> dict[str, Any]:
    """Both placements in turn."""
    turns = []
    for _ in range(options.runs):
        turn = {}
        for placement in PLACEMENTS:
            config = PipelineConfig(
                model=ModelConfig(weights=options.weights),
                placement=placement,
                output=OutputConfig(directory=output, save_video=save_video, overwrite=True),
            )
            turn[placement] = timed(config, clips, options.frames * len(clips))
        turns.append(turn)
    ratios = [turn["processes"][0] / turn["threads"][0] for turn in turns]
    return {
        "frames_per_s": {p: spread([turn[p][0] for turn in turns]) for p in PLACEMENTS},
        "processes_against_threads": spread(ratios),
        "seconds": {p: spread([turn[p][1] for turn in turns]) for p in PLACEMENTS},
    }


def timed(config: PipelineConfig, clips: list[Path], num_frames: int) -> tuple[float, float]:
    """Steady frames/s and the seconds of the whole run."""
    job = Job(config, [str(clip) for clip in clips])
    seen: list[tuple[float, int]] = []

    def tick() -> None:
        tracked = sum(counters["tracked"] for counters in job.counters.values())
        if num_frames / 8 <= tracked <= num_frames * 7 / 8:
            seen.append((time.monotonic(), tracked))

    job.run(tick)
    assert job.complete, [state.reason for state in job.streams]
    (began_s, first), (ended_s, last) = seen[0], seen[-1]
    return (last - first) / (ended_s - began_s), job.elapsed_s


if __name__ == "__main__":
    main()
