# SPDX-License-Identifier: Apache-2.0
"""What small machines carry: `serve` and `run` with one core and 1 GiB, with two cores and 2 GiB.

    python tests/benchmarks/bench_small.py --weights t.safetensors --clip CLIP > small.json

Each profile is a file in configs/serve, whose cameras play the clip in a loop, in real time; both
commands run in a control group with the profile's memory, on as many cores. Frames a second are
those looked at, skipped ones are counted apart by cause; latency is that from reading a frame to
its tracks, memory is what the processes hold at most, sampled each half second after the first
frames, and what the group ever held with the files it read, which the kernel takes back at need.
`--set a.b=value` tries other settings of `serve`. Must be run as root, on a machine that does
nothing else.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from limits import Limits, limited
from prometheus_client.parser import text_string_to_metric_families
from timing import surroundings

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, str(ROOT / "sightline.py")]
GIB = 1 << 30


@dataclass(frozen=True)
class Profile:
    cores: int
    memory_bytes: int

    @property
    def settings(self) -> Path:
        return ROOT / f"configs/serve/small-{self.cores}core.yaml"


PROFILES = {"1core": Profile(1, GIB), "2core": Profile(2, 2 * GIB)}


def main() -> None:
    """Measure every profile and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--profiles", nargs="+", choices=PROFILES, default=list(PROFILES))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--frames", type=int, default=300, help="of the clip, for `run`")
    parser.add_argument("--cameras", type=int, nargs="*", help="how many, if not the profile's")
    parser.add_argument("--set", action="append", default=[], dest="assign")
    options = parser.parse_args()
    result: dict[str, Any] = {**surroundings(), "clip": options.clip.name, "profiles": {}}
    for name in options.profiles:
        profile = PROFILES[name]
        tree = yaml.safe_load(profile.settings.read_text())
        result["profiles"][name] = {
            "cores": profile.cores,
            "memory_mib": profile.memory_bytes >> 20,
            "settings": {key: node for key, node in tree.items() if key != "cameras"},
            "set": options.assign,
            "serve": [
                measure_serve(profile, cameras, options)
                for cameras in options.cameras or [len(tree["cameras"])]
            ],
            "run": measure_run(profile, options),
        }
    print(json.dumps(result, indent=2))


def measure_serve(profile: Profile, num_cameras: int, options: argparse.Namespace) -> Any:
    """Figures of a service over some seconds, after its engine is built."""
    with (
        tempfile.TemporaryDirectory() as folder,
        limited(profile.cores, profile.memory_bytes) as limits,
    ):
        settings = write_settings(profile, num_cameras, options, Path(folder))
        sets = [argument for one in options.assign for argument in ("--set", one)]
        with started(limits, ["serve", str(settings), *sets], Path(folder)) as client:
            wait_for_frames(client)
            before, began_s, peak = sample(client), time.monotonic(), 0
            while time.monotonic() - began_s < options.seconds:
                time.sleep(0.5)
                peak = max(peak, limits.used_bytes())
            after, elapsed_s = sample(client), time.monotonic() - began_s
        return {
            "cameras": num_cameras,
            "cgroup": limits.version,
            **figures(before, after, elapsed_s),
            **memory(limits, peak),
        }


def measure_run(profile: Profile, options: argparse.Namespace) -> Any:
    """Figures of one file, as fast as it goes, with the profile's picture size."""
    size = yaml.safe_load(profile.settings.read_text())["model"]["image_size"]
    with (
        tempfile.TemporaryDirectory() as folder,
        limited(profile.cores, profile.memory_bytes) as limits,
    ):
        command = [*COMMAND, "run", str(options.clip), "--json", "--output", folder]
        command += ["--model", str(options.weights), "--imgsz", str(size)]
        command += ["--limit", str(options.frames)]
        process = subprocess.Popen(
            limits.command(command), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        peak = 0
        while process.poll() is None:
            peak = max(peak, limits.used_bytes())
            time.sleep(0.2)
        assert process.stdout is not None
        told = json.loads(process.stdout.read() or '{"streams": []}')
        return {
            "image_size": size,
            "exit_code": process.returncode,
            "frames": [stream["tracked"] for stream in told["streams"]],
            "frames_per_s": [stream["frames_per_s"] for stream in told["streams"]],
            **memory(limits, peak),
        }


def memory(limits: Limits, peak: int) -> dict[str, int]:
    """What was held, what with the files that were read or mapped, and what that cost."""
    return {
        "peak_mib": peak >> 20,
        "peak_with_files_mib": limits.peak_bytes() >> 20,
        "killed_for_memory": limits.num_killed(),
    }


def write_settings(
    profile: Profile, num_cameras: int, options: argparse.Namespace, folder: Path
) -> Path:
    """The profile with the clip for its cameras, and all that is kept in a folder."""
    tree = yaml.safe_load(profile.settings.read_text())
    first = next(iter(tree["cameras"].values())) | {"source": str(options.clip.absolute())}
    tree["model"]["weights"] = str(options.weights.absolute())
    tree["cameras"] = {f"camera{number}": first for number in range(num_cameras)}
    tree["http"] = {"listen": "127.0.0.1:0"}
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@contextmanager
def started(limits: Limits, arguments: Sequence[str], folder: Path) -> Iterator[httpx.Client]:
    """The service within its limits, and a client of it."""
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(
            limits.command([*COMMAND, *arguments]), stderr=log, cwd=folder, env=dict(os.environ)
        )
        try:
            with httpx.Client(base_url=address(process, folder / "log"), timeout=30) as client:
                yield client
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(90)


def address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Where the service answers, by its log."""
    while process.poll() is None:
        for line in log.read_text().splitlines():
            if "status at " in line:
                return line.split("status at ")[1].split('"')[0]
        time.sleep(0.1)
    raise SystemExit(f"the service ended with {process.returncode}: {log.read_text()[-2000:]}")


def wait_for_frames(client: httpx.Client, within_s: float = 180.0) -> None:
    """Wait until every camera has been looked at for a while."""
    until_s = time.monotonic() + within_s
    while True:
        known = client.get("/api/status").json()["cameras"].values()
        if known and all(camera["counters"]["tracked"] > 10 for camera in known):
            return
        if time.monotonic() > until_s:
            raise SystemExit(f"no frames in {within_s:g} s: {json.dumps(list(known))}")
        time.sleep(0.2)


def sample(client: httpx.Client) -> Mapping[tuple[str, str], float]:
    """The counters and the histogram of latency, summed over cameras."""
    sums: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for name, labels, value, *_ in family.samples:
            if name == "sightline_latency_seconds_bucket" and labels["milestone"] == "tracked":
                key = ("latency", labels["le"])
            elif name.startswith("sightline_frames_"):
                key = (name.split("_")[2], labels.get("cause", ""))
            else:
                continue
            sums[key] = sums.get(key, 0.0) + value
    return sums


def figures(
    before: Mapping[tuple[str, str], float], after: Mapping[tuple[str, str], float], seconds: float
) -> dict[str, Any]:
    """What happened between two samples."""
    grown = {key: value - before.get(key, 0.0) for key, value in after.items()}
    skipped = {cause: count for (kind, cause), count in grown.items() if kind == "skipped"}
    dropped = {cause: count for (kind, cause), count in grown.items() if kind == "dropped"}
    buckets = sorted((float(le), n) for (kind, le), n in grown.items() if kind == "latency")
    return {
        "seconds": round(seconds, 1),
        "decoded_fps": round(grown["decoded", ""] / seconds, 2),
        "tracked_fps": round(grown["tracked", ""] / seconds, 2),
        "skipped_fps": {cause: round(n / seconds, 2) for cause, n in skipped.items() if n},
        "dropped": {cause: n for cause, n in dropped.items() if n},
        "p50_at_most_s": quantile(buckets, 0.5),
        "p95_at_most_s": quantile(buckets, 0.95),
    }


def quantile(buckets: Sequence[tuple[float, float]], share: float) -> float | None:
    """The upper bound of the bucket it lies in."""
    if not buckets or not buckets[-1][1]:
        return None
    return next(bound for bound, count in buckets if count >= share * buckets[-1][1])


if __name__ == "__main__":
    main()
