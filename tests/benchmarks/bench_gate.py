"""What is lost where the detector looks less often: behind the gate, and at every Nth frame.

    python tests/benchmarks/bench_gate.py --weights t.safetensors CLIP...

Every clip runs once with the detector at every frame, which counts as the truth here, then with the
gate and with `detect_every` 2, 3 and 5. Recall is the share of the full run's boxes that the other
run gives too (same frame, same class, IoU of 0.5 or more), precision the share of its boxes that
the full run has; both over all frames, and over the frames alone whose tracks were carried over.
The gate is meant for clips of a camera that stands still.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from timing import surroundings

from model.boxes import pairwise_iou
from model.config import ModelConfig
from pipeline.api import FrameResult, run
from pipeline.config import GateConfig, PipelineConfig, SourceConfig

LEAST_IOU = 0.5
STEPS = (2, 3, 5)


@dataclass(slots=True)
class Tally:
    """Boxes of both runs, and how many of them are the same."""

    expected: int = 0
    given: int = 0
    same: int = 0

    def add(self, expected: FrameResult, given: FrameResult) -> None:
        """Count one frame."""
        self.expected += len(expected.tracks)
        self.given += len(given.tracks)
        self.same += num_same(expected, given)

    def shares(self) -> dict[str, float | int | None]:
        """Recall and precision; None where there was nothing to find."""
        return {
            "boxes": self.expected,
            "recall": share(self.same, self.expected),
            "precision": share(self.same, self.given),
        }


def main() -> None:
    """Run every clip in every way and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=400, help="of each clip, the first ones")
    parser.add_argument("--gate", type=json.loads, default={}, help="settings of the gate, as JSON")
    parser.add_argument("--every", type=int, nargs="*", default=STEPS)
    options = parser.parse_args()
    model = ModelConfig(weights=options.weights)
    ways = {"gate": PipelineConfig(model=model, gate=GateConfig(**options.gate))} | {
        f"detect_every {every}": PipelineConfig(
            model=model, source=SourceConfig(detect_every=every)
        )
        for every in options.every
    }
    result = {
        **surroundings(),
        "gate": GateConfig(**options.gate).model_dump(),
        "clips": {
            clip.stem: compare(clip, PipelineConfig(model=model), ways, options.frames)
            for clip in options.clips
        },
    }
    print(json.dumps(result, indent=2))


def compare(
    clip: Path, full: PipelineConfig, ways: Mapping[str, PipelineConfig], num_frames: int
) -> dict[str, Any]:
    """One clip in every way against the full run."""
    expected = results(clip, full, num_frames)
    return {
        "frames": len(expected),
        "identities": num_identities(expected),
        **{
            name: against(expected, results(clip, config, num_frames))
            for name, config in ways.items()
        },
    }


def results(clip: Path, config: PipelineConfig, num_frames: int) -> list[FrameResult]:
    source = config.source.model_copy(update={"limit": num_frames})
    return list(run(clip, config=config.model_copy(update={"source": source})))


def against(expected: Sequence[FrameResult], given: Sequence[FrameResult]) -> dict[str, Any]:
    """Figures of one way to run."""
    everywhere, carried = Tally(), Tally()
    for wanted, got in zip(expected, given, strict=True):
        everywhere.add(wanted, got)
        if got.predicted:
            carried.add(wanted, got)
    return {
        "skipped": share(sum(result.predicted for result in given), len(given)),
        **everywhere.shares(),
        "identities": num_identities(given),
        "carried_over": carried.shares(),
    }


def num_same(expected: FrameResult, given: FrameResult) -> int:
    """Pairs of boxes of one class that overlap by at least `LEAST_IOU`, each box in one at most."""
    iou = pairwise_iou(expected.tracks.xyxy, given.tracks.xyxy)
    iou *= expected.tracks.class_id[:, None] == given.tracks.class_id[None, :]
    pairs = linear_sum_assignment(iou >= LEAST_IOU, maximize=True)
    return int(np.count_nonzero(iou[pairs] >= LEAST_IOU))


def num_identities(results: Sequence[FrameResult]) -> int:
    return len({track_id for result in results for track_id in result.tracks.track_id.tolist()})


def share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


if __name__ == "__main__":
    main()
