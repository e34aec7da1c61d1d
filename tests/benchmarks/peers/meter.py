"""The one clock of all sides. Standard library only: it runs in every peer's environment."""

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any


def options_of(description: str) -> argparse.ArgumentParser:
    """The options that every side takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="weights or an exported folder")
    parser.add_argument("--image-size", type=int, default=640, help="long side, if not exported")
    parser.add_argument("--save-video", type=Path, help="a folder for the annotated video")
    parser.add_argument("--warm-up", type=int, default=30, help="frames before the steady state")
    return parser


class Meter:
    """Counts frames, tracked boxes and identities, and times the frames after the warm-up."""

    def __init__(self, warm_up: int) -> None:
        self._warm_up = warm_up
        self._began: tuple[int, float, float] | None = None
        self._ended = (0, 0.0, 0.0)
        self._boxes = 0
        self._identities: set[int] = set()
        self._steps_ms: Counter[str] = Counter()

    def frame(self, track_ids: Iterable[int], steps_ms: Mapping[str, float] | None = None) -> None:
        """One more frame is done, with these tracks and the time each step took."""
        self.tracks(track_ids)
        self.mark(self._ended[0] + 1)
        if self._ended[0] > self._warm_up:
            self._steps_ms.update(steps_ms or {})

    def tracks(self, track_ids: Iterable[int]) -> None:
        """Count tracked boxes."""
        for track_id in track_ids:
            self._boxes += 1
            self._identities.add(track_id)

    def mark(self, frames: int) -> None:
        """So many frames are done by now; the same number again changes nothing."""
        if frames == self._ended[0]:
            return
        self._ended = (frames, time.perf_counter(), sum(os.times()[:4]))
        if self._began is None and frames >= self._warm_up:
            self._began = self._ended

    def result(self) -> dict[str, Any]:
        """Rate and processor time of the steady state, and what was found in all frames."""
        frames, ended, cpu_ended = self._ended
        if self._began is None or frames <= self._began[0]:
            raise SystemExit(f"{frames} frames leave nothing after {self._warm_up} of warm-up")
        first, began, cpu_began = self._began
        count = frames - first
        return {
            "frames": frames,
            "frames_per_s": round(count / (ended - began), 3),
            "cpu_ms": round((cpu_ended - cpu_began) / count * 1000, 3),
            "steps_ms": {name: round(ms / count, 3) for name, ms in self._steps_ms.items()},
            "boxes": self._boxes,
            "identities": len(self._identities),
        }


def report(meter: Meter, packages: Iterable[str], **facts: Any) -> None:
    """Print what was measured, as one line of JSON."""
    versions = {name: version(name) for name in packages}
    print(json.dumps({**meter.result(), **facts, "versions": versions}))


def precision_of(compiled: Any) -> str:
    """What an OpenVINO model computes in, by the layers it was compiled to: `u8 150, f32 36`."""
    kinds = Counter(
        info["runtimePrecision"].astype(str)
        for info in (op.get_rt_info() for op in compiled.get_runtime_model().get_ops())
        if info["layerType"].astype(str) == "Convolution"
    )
    return ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
