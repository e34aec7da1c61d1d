# SPDX-License-Identifier: Apache-2.0
"""Damaged copies of clips through `from pipeline import run`, each with a limit in time.

    python -m tests.benchmarks.fuzz_inputs --copies 1000 --output fuzz.json

Wanted of every copy: it ends in time, and it is either complete or one `PipelineError` of one line.
The copies run in a child process, which is replaced when a copy takes it down, so that a crash or a
hang is counted and named and the rest goes on. The clips are those of SIGHTLINE_DATA, the first
frames of each in four containers, or made here where there are none. The engine is the tests' fake
one: what is tried is the path. Exit code 1 where a copy did what it must not; copies that did are
kept with --keep.
"""

import argparse
import gc
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import av
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer
from av.video.stream import VideoStream

from model.config import ModelConfig
from pipeline import run
from pipeline.config import PipelineConfig
from pipeline.errors import PipelineError
from tests.benchmarks.timing import spread, surroundings
from tests.conftest import DATA
from tests.pipeline.damage import DAMAGES, damaged_copy
from tests.pipeline.scenes import build_squares, make_card_file, make_scene

CONTAINERS = ("mp4", "mkv", "ts", "avi")
NUM_FRAMES = 60
ROOT = Path(__file__).parents[2]
GOOD = ("complete", "told")
START_S = 60  # until a child that is being started answers


@dataclass(frozen=True, slots=True)
class Copy:
    """One damaged copy: which clip, which damage."""

    clip: Path
    kind: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.clip.stem}-{self.kind}-{self.seed}{self.clip.suffix}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a copy."""

    name: str
    kind: str
    verdict: str
    """complete or told; else crash, hang, odd error, many lines, leak."""
    text: str
    frames: int
    elapsed_s: float


def main() -> int:
    options = parse()
    if options.child:
        serve(options.child)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = make_clips(folder)
        child = Child(make_card_file(folder / "card.safetensors"), options.limit_s)
        outcomes = []
        try:
            for copy in plan(clips, options):
                outcomes.append(try_copy(child, copy, folder, options.keep))
                show(outcomes, options.copies)
        finally:
            child.close()
    figures = summary(outcomes, clips, options)
    print(json.dumps(figures, indent=1))
    if options.output:
        options.output.write_text(json.dumps(figures, indent=1) + "\n")
    return int(any(outcome.verdict not in GOOD for outcome in outcomes))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Damaged files through the pipeline.")
    parser.add_argument("--copies", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="where the seeds of the copies begin")
    parser.add_argument("--limit-s", type=float, default=20.0, help="for each copy")
    parser.add_argument("--output", type=Path, help="also write the figures here")
    parser.add_argument("--keep", type=Path, help="folder for the copies that fail")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def make_clips(folder: Path) -> list[Path]:
    """Short sound clips of each container to be damaged."""
    seeds = sorted((DATA / "clips").glob("*.mp4")) if (DATA / "clips").is_dir() else []
    if not seeds:
        seeds = [make_scene(folder / "scene-seed.mp4", num_frames=NUM_FRAMES)]
    return [
        first_frames(seed, folder / f"{seed.stem}.{container}")
        for seed in seeds
        for container in CONTAINERS
        if seed != folder / f"{seed.stem}.{container}"
    ]


def first_frames(source: Path, target: Path) -> Path:
    """The first packets of a clip's video in another container, not encoded again."""
    with av.open(str(source)) as original, av.open(str(target), "w") as copy:
        video = original.streams.video[0]
        stream = copy.add_stream_from_template(video)
        for packet in islice(unpacked(original, video, target.suffix), NUM_FRAMES):
            packet.stream = stream
            copy.mux(packet)
    return target


def unpacked(
    container: InputContainer, video: VideoStream, suffix: str
) -> "Iterator[av.Packet[VideoStream]]":
    """Packets as the other container wants them: an AVI takes H.264 with start codes only."""
    packets = (packet for packet in container.demux(video) if packet.size)
    if suffix != ".avi" or video.codec_context.name != "h264":
        return packets
    annexb = BitStreamFilterContext("h264_mp4toannexb", video)
    return (done for packet in packets for done in annexb.filter(packet))


def plan(clips: list[Path], options: argparse.Namespace) -> Iterator[Copy]:
    """Every clip with every kind of damage in turn, until there are enough."""
    kinds = tuple(DAMAGES)
    for number in range(options.copies):
        clip = clips[number % len(clips)]
        kind = kinds[number // len(clips) % len(kinds)]
        yield Copy(clip, kind, options.seed + number)


def try_copy(child: "Child", copy: Copy, folder: Path, keep: Path | None) -> Outcome:
    path = folder / copy.name
    path.write_bytes(damaged_copy(copy.clip.read_bytes(), copy.kind, copy.seed))
    began = time.monotonic()
    answer = child.ask(path)
    elapsed_s = round(time.monotonic() - began, 3)
    outcome = Outcome(name=copy.name, kind=copy.kind, elapsed_s=elapsed_s, **answer)
    if outcome.verdict not in GOOD and keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / copy.name).write_bytes(path.read_bytes())
    path.unlink()
    return outcome


class Child:
    """A process that runs copies, started anew after one has taken it down."""

    def __init__(self, weights: Path, limit_s: float) -> None:
        self._weights = weights
        self._limit_s = limit_s
        self._process: subprocess.Popen[str] | None = None

    def ask(self, path: Path) -> dict[str, Any]:
        """Run one copy; verdict, text and frames."""
        process = self._running()
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it is gone, as reading shows
            process.stdin.write(f"{path}\n")
            process.stdin.flush()
        line = self._line(process, self._limit_s)
        if line:
            return json.loads(line)
        if line is None:
            self.close()
            return {"verdict": "hang", "text": f"not done after {self._limit_s} s", "frames": 0}
        code = process.wait()
        self._process = None
        signalled = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return {"verdict": "crash", "text": signalled, "frames": 0}

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.benchmarks.fuzz_inputs", "--child", self._weights],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            if self._line(self._process, START_S) != "ready\n":
                raise SystemExit("the child process does not start")
        return self._process

    @staticmethod
    def _line(process: subprocess.Popen[str], limit_s: float) -> str | None:
        """The next line of the process: empty where it ended, None where it took too long."""
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], limit_s)
        return process.stdout.readline() if readable else None


def serve(weights: Path) -> None:
    """The child: paths come in, one a line; what became of each goes out."""
    import pipeline.job

    pipeline.job.build_engine = build_squares  # type: ignore[assignment]
    config = PipelineConfig(model=ModelConfig(weights=weights, image_size=160))
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nothing else gets into the answers
    answers.write("ready\n")
    for line in sys.stdin:
        before = threading.active_count(), num_descriptors()
        answer = run_one(Path(line.removesuffix("\n")), config)
        gc.collect()  # a job's counters are part of a cycle
        left = threading.active_count() - before[0], num_descriptors() - before[1]
        if max(left) > 0 and answer["verdict"] in GOOD:
            answer |= {"verdict": "leak", "text": f"{left[0]} threads, {left[1]} descriptors left"}
        answers.write(json.dumps(answer) + "\n")


def run_one(path: Path, config: PipelineConfig) -> dict[str, Any]:
    """Run one copy to its end; verdict, text and frames."""
    frames, verdict, text = 0, "complete", ""
    try:
        for _ in run(path, config=config):
            frames += 1
    except PipelineError as error:
        verdict, text = "told", str(error)
        if "\n" in text or not text.isprintable():
            verdict = "many lines"
        if "stage " in text and " failed: " in text:
            verdict = "odd error"
    except Exception as error:  # noqa: BLE001 - which ones there are is the question
        verdict, text = "odd error", f"{type(error).__name__}: {error}"
    return {"verdict": verdict, "text": text, "frames": frames}


def num_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def show(outcomes: list[Outcome], wanted: int) -> None:
    """Name what fails when it does; say now and then how far it is."""
    last = outcomes[-1]
    if last.verdict not in GOOD:
        print(f"{last.name}: {last.verdict}: {last.text}", file=sys.stderr)
    if len(outcomes) % 100 == 0:
        print(f"{len(outcomes)} of {wanted}", file=sys.stderr)


def summary(
    outcomes: list[Outcome], clips: list[Path], options: argparse.Namespace
) -> dict[str, Any]:
    return {
        **surroundings(),
        "copies": len(outcomes),
        "first_seed": options.seed,
        "limit_s": options.limit_s,
        "clips": sorted({clip.stem for clip in clips}),
        "containers": CONTAINERS,
        "verdicts": dict(Counter(outcome.verdict for outcome in outcomes)),
        "by_damage": {
            kind: dict(Counter(o.verdict for o in outcomes if o.kind == kind)) for kind in DAMAGES
        },
        "frames": sum(outcome.frames for outcome in outcomes),
        "seconds_per_copy": spread([outcome.elapsed_s for outcome in outcomes]),
        "failures": [asdict(outcome) for outcome in outcomes if outcome.verdict not in GOOD],
    }


if __name__ == "__main__":
    sys.exit(main())
