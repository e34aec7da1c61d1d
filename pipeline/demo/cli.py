# SPDX-License-Identifier: Apache-2.0
"""sightline demo: draw a street or take a clip, run, say what was found."""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from model.shipped import find_weights
from pipeline.cli import RunOptions, run

OUTPUT = Path("out/demo")


def demo(
    video: str | None = None, *, model: Annotated[Path | None, Parameter(alias="-m")] = None
) -> int:
    """Let the default model look at a clip: annotated video in out/demo, and what was found.

    Without a clip it looks at a drawn street, made on the spot. What out/demo holds of an earlier
    demo is replaced.

    Args:
        video: A clip of your own.
        model: Weights to detect with, or the name of a model; the package's own if not given.
    """
    options = RunOptions(model=find_weights(model), output=OUTPUT, save_video=True, overwrite=True)
    if video is not None:
        code = run(video, options=options)
    else:
        from pipeline.demo.street import TRAFFIC, write_street

        with tempfile.TemporaryDirectory() as folder:
            print("drawing a street ...", flush=True)
            code = run(str(write_street(Path(folder) / "street.mp4")), options=options)
        drawn = Counter(mover.kind for mover in TRAFFIC)
        print(f"drawn: {', '.join(f'{count} {kind}' for kind, count in drawn.items())}")
    if (OUTPUT / "summary.json").exists():
        for line in _found(json.loads((OUTPUT / "summary.json").read_text())):
            print(line)
    return code


def _found(summary: dict[str, Any]) -> Iterator[str]:
    """Tell what each stream's tracks are of."""
    for stream in summary["streams"]:
        path = OUTPUT / f"{stream['name']}.jsonl"
        if not path.exists():
            continue
        frames = [json.loads(line)["objects"] for line in path.read_text().splitlines()]
        yield from _by_class(frames)
        yield f"{OUTPUT / stream['name']}.mp4: the annotated video"


def _by_class(frames: list[list[dict[str, Any]]]) -> Iterator[str]:
    every = [found for objects in frames for found in objects]
    names = sorted({found["class"] for found in every})
    if not names:
        yield f"found: nothing in {len(frames)} frames"
    for name in names:
        tracks = {found["id"] for found in every if found["class"] == name}
        seen = sum(any(found["class"] == name for found in objects) for objects in frames)
        best = max(found["score"] for found in every if found["class"] == name)
        count = f"{len(tracks)} track{'s' * (len(tracks) != 1)}"
        yield f"found: {name}, {count}, in {seen} of {len(frames)} frames, best score {best:.2f}"
