"""SIGKILL to each kind of worker process at random moments of a run over a file.

    python tests/benchmarks/bench_kills.py [--weights t.safetensors --clip people.mp4]

Checks every outcome: after the trunk, the reader or the nursery died, the tracks are those of a
run in threads, byte for byte; after the tracker or the sinks died, the file has failed, what was
written is kept as `*.partial`, and the other file of the run is whole. Recovery is the time from
the kill until a frame is tracked that had not been decoded then. Without --weights, an artificial
engine finds bright squares in a clip made for it. Ends with 1 if an outcome is wrong.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # called by its path

from timing import surroundings

import pipeline.job
from model.config import ModelConfig
from pipeline.config import OutputConfig, PipelineConfig
from pipeline.job import Job
from tests.pipeline.scenes import build_squares, make_card_file, make_scene

REPLACED, FATAL = ("trunk", "read", "nursery"), ("track", "sinks")


def main() -> None:
    """Kill each kind of worker so many times and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--kills", type=int, default=20, help="of each kind of worker")
    parser.add_argument("--frames", type=int, default=300, help="of the clip to process")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = two_clips(options, folder)
        config = PipelineConfig.model_validate(
            {"source": {"limit": options.frames}, "parallel": 2, "placement": "processes"}
        )
        weights = options.weights
        if weights is None:
            weights = make_card_file(folder / "card.safetensors")
            pipeline.job.build_engine = build_squares
        config = config.model_copy(update={"model": ModelConfig(weights=weights)})
        result = kill_all(config, clips, folder, options)
    print(json.dumps({**surroundings(), **result}, indent=2))
    sys.exit(1 if any(group["wrong"] for group in result["groups"].values()) else 0)


def two_clips(options: argparse.Namespace, folder: Path) -> tuple[Path, Path]:
    """The clip under two names, which two branches work on at once."""
    clips = folder / "one.mp4", folder / "two.mp4"
    if options.clip is None:
        make_scene(clips[0], num_frames=options.frames)
    else:
        shutil.copyfile(options.clip, clips[0])
    shutil.copyfile(clips[0], clips[1])
    return clips


def kill_all(
    config: PipelineConfig, clips: tuple[Path, Path], folder: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """A run in threads to compare with, then all kills of each kind."""
    chance = random.Random(options.seed)
    threads = run(config.model_copy(update={"placement": "threads"}), clips, folder / "threads")
    assert threads.complete
    expected = tracks(folder / "threads", "one")
    groups = {}
    for group in (*REPLACED, *FATAL):
        kills = []
        for _ in range(options.kills):
            kill = Kill(group, chance.randrange(int(options.frames * 0.8)))
            output = folder / "killed"
            kill.job = run(config, clips, output, kill)
            kill.right = judge(kill, output, expected)
            kills.append(kill)
        groups[group] = describe(kills)
    return {"frames": options.frames, "kills_each": options.kills, "groups": groups}


@dataclass
class Kill:
    """One process killed when so many frames of the first clip are tracked."""

    group: str
    at_frame: int
    at_s: float = 0.0
    decoded: int = 0
    recovered_s: float | None = None
    right: bool = False
    job: Job | None = None

    def tick(self, job: Job) -> None:
        """Called about ten times a second, and after each report."""
        counters = job.counters["one"]
        if not self.at_s:
            if counters["tracked"] >= self.at_frame and (pid := self._pid(job)):
                os.kill(pid, signal.SIGKILL)
                self.at_s, self.decoded = time.monotonic(), counters["decoded"]
        elif self.recovered_s is None and counters["tracked"] > self.decoded:
            self.recovered_s = time.monotonic() - self.at_s

    def _pid(self, job: Job) -> int:
        crew = job.supervisor._crew
        if self.group == "nursery":
            return next((nursery.pid for nursery in crew._hiring.nurseries), 0)
        streams = ("", "one")
        processes = [p for p in crew._processes if p.group == self.group]
        return next((p.pid for p in processes if p.stream in streams), 0)


def run(
    config: PipelineConfig, clips: tuple[Path, Path], output: Path, kill: Kill | None = None
) -> Job:
    """Run both clips into a folder that is emptied first."""
    shutil.rmtree(output, ignore_errors=True)
    config = config.model_copy(update={"output": OutputConfig(directory=output)})
    job = Job(config, [str(clip) for clip in clips])
    job.run(lambda: kill.tick(job) if kill else None)
    return job


def judge(kill: Kill, output: Path, expected: bytes) -> bool:
    """Whether a run ended as promised."""
    assert kill.job is not None
    one, two = kill.job.streams
    accounted = all(counters.num_in_flight == 0 for counters in kill.job.counters.values())
    if not (accounted and two.complete and tracks(output, "two") == expected):
        return False
    if kill.group in REPLACED:
        return one.complete and tracks(output, "one") == expected
    kept = (output / "one.mot.txt.partial").exists() and not (output / "one.mot.txt").exists()
    return not one.complete and kept


def tracks(folder: Path, name: str) -> bytes:
    """All that was said about a file."""
    texts = [folder / f"{name}.mot.txt", folder / f"{name}.jsonl"]
    return b"".join(text.read_bytes() if text.exists() else b"missing" for text in texts)


def describe(kills: list[Kill]) -> dict[str, Any]:
    """How the kills of one kind ended."""
    recovered = sorted(kill.recovered_s for kill in kills if kill.recovered_s is not None)
    told: dict[str, Any] = {
        "hit": sum(kill.at_s > 0 for kill in kills),
        "right": sum(kill.right for kill in kills),
        "wrong": [kill.at_frame for kill in kills if not kill.right],
    }
    if len(recovered) > 1 and kills[0].group in REPLACED:
        told["recovery_s"] = {
            "median": round(median(recovered), 2),
            "p95": round(quantiles(recovered, n=20, method="inclusive")[18], 2),
            "of": len(recovered),
        }
    return told


if __name__ == "__main__":
    main()
