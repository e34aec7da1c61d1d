# SPDX-License-Identifier: Apache-2.0
"""What an update costs under live cameras, and whether bad bundles always undo themselves.

    python tests/benchmarks/bench_update.py [--cameras 2] [--updates 3] [--bad 20]

A box in a folder runs the real service of this tree over cameras. Its versions are wheels that the
box's own script installs: they hold this tree by its path, and its dependencies come from the
interpreter that runs this program. Frames count as lost while no version tracks any: from the last
frame of one version to the first of the next, as its status says, looked at each 50 ms.

Its figures of 2026-11-22 are in results/update.json and docs/guides/updating.md.
"""

import argparse
import itertools
import json
import logging
import os
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from live import RATE, percentile
from timing import surroundings
from versions import BAD, make_version

from model.errors import ModelError
from pipeline.box.health import Limits, look_at
from pipeline.box.manifest import read_manifest
from pipeline.errors import PipelineError
from pipeline.serve.access import HttpConfig
from tests.pipeline.box.box import Box
from tests.pipeline.cameras import make_film
from tests.pipeline.small_camera import SmallCamera

logger = logging.getLogger(__name__)

LOOK_S: Final = 0.05


def main() -> None:
    """Update again and again, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cameras", type=int, default=2)
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--bad", type=int, default=20)
    parser.add_argument("--watch-s", type=float, default=10.0)
    parser.add_argument("--size", default="640x360")
    parser.add_argument("--image-size", type=int, default=320)
    options = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(options, Path(folder)), indent=2))


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Good updates first, then bad ones of all kinds in turn."""
    width, height = map(int, options.size.split("x"))
    film = make_film(
        folder / "film.mp4", width=width, height=height, num_frames=100, keyframe_each=25
    )
    cameras = [SmallCamera(film) for _ in range(options.cameras)]
    box = Box(folder / "root", make_version(folder, 0, "good"))
    box.layout.settings.write_text(settings_of(box, cameras, options.image_size))
    os.environ["SIGHTLINE_CACHE"] = str(box.layout.cache)  # one cache for all, as on a box
    watch = Watch(box, cameras)
    for camera in cameras:
        camera.on()
    try:
        box.manager.start()
        watch.wait_for_frames()
        limits = Limits(watch_s=options.watch_s, ready_s=120.0)
        good = [
            switched(box, watch, make_version(folder, number + 1, "good"), limits)
            for number in range(options.updates)
        ]
        bad = [
            refused(box, watch, make_version(folder, 100 + number, BAD[number % len(BAD)]))
            for number in range(options.bad)
        ]
    finally:
        watch.over = True
        box.manager.stop()
        for camera in cameras:
            camera.off()
    return {
        **surroundings(),
        "cameras": f"{options.cameras} of {options.size} at {RATE} frames/s",
        "updates": summary(good),
        "bad": {
            kind: {
                "tried": len(mine := [result for result in bad if result["kind"] == kind]),
                "undone": sum(result["undone"] for result in mine),
                **summary(mine),
            }
            for kind in BAD
        },
    }


def settings_of(box: Box, cameras: list[SmallCamera], image_size: int) -> str:
    """Settings of a service over these cameras."""
    weights = box.layout.current / "weights/model.safetensors"
    return json.dumps(
        {
            "model": {"image_size": image_size, "weights": str(weights)},
            "cameras": {f"c{n}": {"source": each.address()} for n, each in enumerate(cameras)},
            "http": {"listen": f"127.0.0.1:{box.port}"},
        }
    )


def switched(box: Box, watch: "Watch", bundle: Path, limits: Limits) -> dict[str, Any]:
    """One update that is to succeed."""
    began_s = time.monotonic()
    box.updater(limits).update(bundle, signed=False)
    return told({"took_s": time.monotonic() - began_s, **watch.lost_since(began_s)})


def refused(box: Box, watch: "Watch", bundle: Path) -> dict[str, Any]:
    """One update that is to undo itself."""
    began_s, before = time.monotonic(), box.links()
    undone = False
    try:
        box.updater(Limits(watch_s=5.0, ready_s=10.0)).update(bundle, signed=False)
    except (PipelineError, ModelError) as fault:
        logger.info("%s", fault)
        watch.wait_for_frames()
        versions, journal = box.versions(), box.layout.update_journal
        undone = box.links() == before and versions <= set(before) and not journal.exists()
    took_s = time.monotonic() - began_s
    kind = BAD[(int(read_manifest(bundle).version.split(".")[1]) - 100) % len(BAD)]
    lost = watch.lost_since(began_s)
    return told({"kind": kind, "undone": undone, "took_s": took_s, **lost})


def told(result: dict[str, Any]) -> dict[str, Any]:
    """The result, of which a line is logged."""
    logger.info("%s", result)
    return result


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians and the worst."""
    return {
        name: {
            "median": percentile([result[name] for result in results], 0.5),
            "max": percentile([result[name] for result in results], 1),
        }
        for name in ("took_s", "gap_s", "frames_lost")
        if results
    }


class Watch:
    """Keeps when frames were tracked."""

    def __init__(self, box: Box, cameras: list[SmallCamera]) -> None:
        self._http = HttpConfig(listen=f"127.0.0.1:{box.port}")
        self._cameras = cameras
        self.over = False
        self._grown_s: list[float] = []
        threading.Thread(target=self._work, daemon=True).start()

    def wait_for_frames(self, most_s: float = 120.0) -> None:
        """Wait until frames are tracked from now on."""
        began_s = time.monotonic()
        while not self._grown_s or self._grown_s[-1] < began_s:
            if time.monotonic() > began_s + most_s:
                raise SystemExit(f"no frame was tracked for {most_s:g} s")
            time.sleep(LOOK_S)

    def lost_since(self, began_s: float) -> dict[str, float]:
        """The longest time without a tracked frame, and the frames that fall into it."""
        self.wait_for_frames()
        times = [began_s, *(at_s for at_s in self._grown_s if at_s > began_s)]
        gap_s = max(after - before for before, after in itertools.pairwise(times))
        return {"gap_s": gap_s, "frames_lost": round(gap_s * RATE * len(self._cameras))}

    def _work(self) -> None:
        latest = 0
        while not self.over:
            with suppress(OSError, ValueError):
                seen = look_at(self._http)
                if (number := sum(seen.num_frames.values())) > latest:
                    self._grown_s.append(time.monotonic())
                latest = number
            time.sleep(LOOK_S)


if __name__ == "__main__":
    main()
