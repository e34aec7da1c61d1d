"""Sightline against its peers on one 1080p clip, in turn, each side a process of its own.

    python tests/benchmarks/peers/prepare.py PEERS
    python tests/benchmarks/compare_peers.py --peers PEERS --weights t.safetensors \\
        --clip people.mp4 [--weights-int8 t-int8 --calibration coco128/data.yaml] > result.json

Peers: ultralytics (its OpenVINO export, ByteTrack) and the loop that tutorials teach, each at its
default square and at the rectangle that Sightline uses for the clip; and, tracks only, our own
parts in one thread. All run the same weights, which ultralytics exports under its own names (kept
in PEERS/models), and keep boxes from score 0.1 for the tracker, from 0.25 for new tracks. Rates
and processor time are of the steady state, from the 30th frame to the last; ratios are taken
within a turn, and every other turn runs backwards. Sides that are not set up are named in
`left_out`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clips import scaled_clip
from peers.official import save_official
from peers.prepare import python_of, surroundings_of
from timing import spread, surroundings

from model.letterbox import rectangle
from model.weights import weights_digest

FOLDER = Path(__file__).parent / "peers"
SIZE_WH = (1920, 1080)
Output = Literal["tracks", "video"]


@dataclass(frozen=True, slots=True)
class Side:
    """A program, the environment it runs in, and the canvas it is given."""

    program: str
    peer: str | None = None
    """The environment that `prepare.py` made; None for ours."""
    square: bool = False
    outputs: tuple[Output, ...] = ("tracks", "video")


SIDES = {
    "sightline": Side("sightline_side.py"),
    "ultralytics_square": Side("ultralytics_side.py", "ultralytics", square=True),
    "ultralytics_rectangle": Side("ultralytics_side.py", "ultralytics"),
    "tutorial_square": Side("tutorial_side.py", "tutorial", square=True),
    "tutorial_rectangle": Side("tutorial_side.py", "tutorial"),
    "our_parts_in_one_thread": Side("our_parts_side.py", outputs=("tracks",)),
}
PRECISIONS = ("default", "int8")
"""What each side computes in by itself, and models quantised by its own tools."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is compared side by side."""

    precision: str
    output: Output
    models: dict[str, Path]
    """Of each side that takes part, `sightline` among them."""


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = scaled_clip(
            options.clip,
            folder / "clip.mp4",
            width=SIZE_WH[0],
            height=SIZE_WH[1],
            num_frames=options.frames,
        )
        left_out: dict[str, str] = {}
        models = {
            precision: dict(models_of(precision, options, left_out)) for precision in PRECISIONS
        }
        cases = list(cases_of(models, options.outputs))
        turns = [turn(cases, clip, number, options) for number in range(options.runs)]
    result = {
        **surroundings(),
        "clip": f"{SIZE_WH[0]}x{SIZE_WH[1]} H.264, {options.frames} frames of {options.clip.name}",
        "weights": options.weights.name,
        "image_size": options.image_size,
        "comparisons": [
            {"precision": case.precision, "output": case.output}
            | compared([measured[place] for measured in turns])
            for place, case in enumerate(cases)
        ],
        "left_out": left_out,
    }
    print(json.dumps(result, indent=2))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=Path, required=True, help="the folder of prepare.py")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--weights-int8", type=Path, help="an int8 artefact of the same weights")
    parser.add_argument("--calibration", type=Path, help="data.yaml for the peers' int8 exports")
    parser.add_argument("--clip", type=Path, required=True, help="a real clip to enlarge")
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument("--outputs", choices=("tracks", "video"), nargs="+")
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--warm-up", type=int, default=30)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    options.outputs = options.outputs or ["tracks", "video"]
    if options.frames <= options.warm_up:
        parser.error(f"--frames must be more than the {options.warm_up} of --warm-up")
    for file in (options.clip, options.weights, options.weights_int8, options.calibration):
        if file is not None and not file.exists():
            parser.error(f"{file}: no such file")
    return options


def models_of(
    precision: str, options: argparse.Namespace, left_out: dict[str, str]
) -> Iterator[tuple[str, Path]]:
    """The model of each side that can take part; the others are noted with the reason."""
    ours = options.weights if precision == "default" else options.weights_int8
    for name, side in SIDES.items():
        label = f"{name}, {precision}"
        if ours is None:
            left_out[label] = "no --weights-int8"
        elif side.peer is None:
            yield name, ours
        elif precision == "int8" and options.calibration is None:
            left_out[label] = "no --calibration"
        elif missing := [
            peer
            for peer in ("ultralytics", side.peer)  # ultralytics exports for both
            if not python_of(options.peers, peer).exists()
        ]:
            left_out[label] = f"not set up: {missing[0]}"
        else:
            yield name, exported(side, precision, options)


def exported(side: Side, precision: str, options: argparse.Namespace) -> Path:
    """The folder that ultralytics exported for these weights and this shape, made if need be."""
    size = options.image_size
    height, width = (size, size) if side.square else rectangle((SIZE_WH[1], SIZE_WH[0]), size)
    models = options.peers.absolute() / "models"
    models.mkdir(exist_ok=True)
    label = f"{weights_digest(options.weights)[:12]}-{height}x{width}-{precision}"
    output = models / f"{label}_openvino_model"  # ultralytics knows its exports by this ending
    if not output.exists():
        official = models / f"{label}.safetensors"
        save_official(options.weights, official)
        command = ["--weights", official, "--image-hw", height, width, "--output", output]
        if precision == "int8":
            command += ["--data", options.calibration.absolute()]
        print(f"exporting {output.name}", file=sys.stderr)
        ran("ultralytics_export.py", "ultralytics", command, options.peers)
    return output


def cases_of(models: dict[str, dict[str, Path]], outputs: list[Output]) -> Iterator[Case]:
    """Every precision and output that Sightline and somebody else can run."""
    for precision, all_models in models.items():
        for output in outputs:
            taking_part = {
                name: model for name, model in all_models.items() if output in SIDES[name].outputs
            }
            if len(taking_part) > 1:
                yield Case(precision, output, taking_part)


def turn(
    cases: list[Case], clip: Path, number: int, options: argparse.Namespace
) -> list[dict[str, dict[str, Any]]]:
    """Run every side of every case once; what each measured, in the order of the cases."""
    measured = []
    for case in cases:
        names = list(case.models)
        ordered = reversed(names) if number % 2 else names
        found = {name: measure(name, case, clip, options) for name in ordered}
        measured.append({name: found[name] for name in names})
    return measured


def measure(name: str, case: Case, clip: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One run of one side."""
    side = SIDES[name]
    with tempfile.TemporaryDirectory() as folder:
        command = ["--clip", clip, "--model", case.models[name].absolute()]
        command += ["--image-size", options.image_size, "--warm-up", options.warm_up]
        if case.output == "video":
            command += ["--save-video", folder]
        found = json.loads(ran(side.program, side.peer, command, options.peers).splitlines()[-1])
    label = f"{name}, {case.precision}, {case.output}"
    print(f"{label}: {found['frames_per_s']:.1f} frames/s", file=sys.stderr)
    return found


def ran(program: str, peer: str | None, command: list[Any], peers: Path) -> str:
    """Run a program in a peer's environment, or ours; what it printed."""
    python = python_of(peers, peer) if peer else sys.executable
    done = subprocess.run(
        [python, FOLDER / program, *map(str, command)],
        capture_output=True,
        text=True,
        env=surroundings_of(peers) if peer else None,
    )
    if done.returncode:
        raise SystemExit(f"{program} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def compared(turns: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """The sides of one case over all turns, and what Sightline's rate is in each one's."""
    peers = [name for name in turns[0] if name != "sightline"]
    return {
        "sides": {name: over_turns([turn[name] for turn in turns]) for name in turns[0]},
        "sightline_against": {
            name: {
                "frames_per_s": ratio(turns, name, "frames_per_s"),
                "cpu_ms": ratio(turns, name, "cpu_ms"),
            }
            for name in peers
        },
        "agreement": {name: agreement(turns[0]["sightline"], turns[0][name]) for name in peers},
    }


def over_turns(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """One side: spreads of what varies, medians of its steps, and the facts of its last run."""
    numbers = {name: spread([run[name] for run in runs]) for name in ("frames_per_s", "cpu_ms")}
    steps = {
        group: {
            step: spread([run[group].get(step, 0.0) for run in runs])["median"]
            for step in runs[-1][group]
        }
        for group in ("steps_ms", "stages_ms")
        if runs[-1].get(group)
    }
    return {**runs[-1], **numbers, **steps}


def ratio(turns: list[dict[str, dict[str, Any]]], name: str, number: str) -> dict[str, float]:
    """Sightline's number in this side's, within each turn."""
    return spread([turn["sightline"][number] / turn[name][number] for turn in turns])


def agreement(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Whether both did the same work: all frames, and about as many tracked boxes.

    Trackers confirm and end tracks by different rules, and a rectangle sees a little less than a
    square; half as many or twice as many boxes would mean that the sides do different things.
    """
    boxes = ours["boxes"] / max(theirs["boxes"], 1)
    return {
        "same_frames": ours["frames"] == theirs["frames"],
        "boxes_ratio": round(boxes, 3),
        "identities": [ours["identities"], theirs["identities"]],
        "agrees": ours["frames"] == theirs["frames"] and 0.5 <= boxes <= 2,
    }


if __name__ == "__main__":
    main()
