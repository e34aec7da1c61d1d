"""A service for a long time: does anything of it grow?

    python tests/benchmarks/bench_soak.py --minutes 20 --plot soak.png [--weights t.safetensors]

Eight RTSP cameras in a loop, one line, one zone and one crowd to be told of each, HTTP asked every
10 s. Each minute one camera is unplugged for five seconds and another is changed. Memory,
descriptors and threads are those of all processes of the service together (`Pss`, so that shared
pages count once; without those of files, whose share changes with every other program that has the
same libraries open); latency is from the arrival of a packet to the frame's tracks, as the service
counts it. Slopes are of a straight line through the samples once every camera has been unplugged,
after four minutes at least, or two thirds of a shorter run: a reader's second decoder takes memory
that its third takes again. Rings of packets have 1 MiB instead of 8, to be full within seconds also
where a camera begins anew.

At the end all cameras are removed, and every frame that was decoded must be accounted for.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import numpy as np
import yaml
from bench_memory import tree_of
from live import ROOT, BuildTimed, make_camera, timed_card
from prometheus_client.parser import text_string_to_metric_families
from timing import surroundings

SERVICE_S = 0.002
EACH_S = 10.0
UNPLUGGED_S = 5.0
NUM_CAMERAS = 8
DATA = Path(os.environ.get("SIGHTLINE_DATA", ROOT.parent / "shared"))
CLIP = DATA / "clips/night-street-426x240.mp4"

Counts = Mapping[str, Mapping[str, float]]
"""Of each camera, by the name of the counter."""


def main() -> None:
    """Watch a service and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--cameras", type=int, default=NUM_CAMERAS)
    parser.add_argument("--weights", type=Path, help="the real detector instead of a timed engine")
    parser.add_argument("--clip", type=Path, help="what the cameras show")
    parser.add_argument("--size", default="426x240")
    parser.add_argument("--plot", type=Path, help="a PNG of it all")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        sys.exit(serve(options.serve))
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(options, Path(folder)), indent=2))


def serve(settings: Path) -> int:
    """The command itself, with an engine of known speed."""
    import sightline

    with patch("pipeline.serve.service.build_engine", BuildTimed(SERVICE_S)):
        return sightline.main(["serve", str(settings), "--log-level", "warning"])


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The service at one time."""

    at_s: float
    pss_mb: float
    descriptors: int
    threads: int
    processes: int
    pss_of: Mapping[str, float]
    """Of all processes of a name together."""


@dataclass
class Soak:
    """A service, its cameras, and what was seen of it."""

    client: httpx.Client
    process: "subprocess.Popen[bytes]"
    cameras: Mapping[str, Any]
    settings: Mapping[str, Any]
    began_s: float = field(default_factory=time.monotonic)
    samples: list[Sample] = field(default_factory=list)
    p95_ms: list[tuple[float, float]] = field(default_factory=list)
    """Of each minute, which ended then."""

    def watch(self, minutes: float) -> None:
        """Take samples, and each minute trouble two cameras."""
        before = self._latencies()
        for number in range(round(minutes * 60 / EACH_S)):
            self._trouble(number)
            time.sleep(max(0.0, self.began_s + (number + 1) * EACH_S - time.monotonic()))
            assert self.process.poll() is None, "the service ended"
            self.samples.append(self._sample())
            self.client.get("/api/status").raise_for_status()
            self.client.get("/api/events").raise_for_status()
            if (number + 1) % 6 == 0:
                now = self._latencies()
                self.p95_ms.append((self.samples[-1].at_s, _percentile(before, now)))
                before = now

    def _trouble(self, number: int) -> None:
        names, minute = list(self.cameras), number // 6
        name = names[minute % len(names)]
        if number % 6 == 2:
            self.cameras[name].off()
            time.sleep(UNPLUGGED_S)
            self.cameras[name].on()
        if number % 6 == 4:
            name = names[(minute + 1) % len(names)]
            changed = {**self.settings[name], "max_fps": 20 + minute % 2}
            self.client.put(f"/api/cameras/{name}", json=changed).raise_for_status()

    def counts(self) -> Counts:
        """What each camera has counted, those that are gone too."""
        found: defaultdict[str, dict[str, float]] = defaultdict(dict)
        for family in text_string_to_metric_families(self.client.get("/metrics").text):
            if family.type == "counter":
                for sample in family.samples:
                    if "camera" in sample.labels and sample.name.endswith("_total"):
                        name = f"{family.name} {sample.labels.get('cause', '')}".strip()
                        found[sample.labels["camera"]][name] = sample.value
        return dict(found)

    def remove_all(self) -> None:
        """Have every camera end in good order."""
        for name in self.cameras:
            self.client.delete(f"/api/cameras/{name}").raise_for_status()
        _wait(lambda: not self.client.get("/api/status").json()["cameras"])

    def _sample(self) -> Sample:
        pids = tree_of(self.process.pid)
        pss_of: defaultdict[str, float] = defaultdict(float)
        for pid in pids:
            pss_of[_name_of(pid)] += _pss_mb(pid)
        return Sample(
            at_s=round(time.monotonic() - self.began_s, 1),
            pss_mb=round(sum(pss_of.values()), 2),
            pss_of={name: round(value, 1) for name, value in pss_of.items()},
            descriptors=sum(_entries(pid, "fd") for pid in pids),
            threads=sum(_entries(pid, "task") for pid in pids),
            processes=len(pids),
        )

    def _latencies(self) -> dict[str, Mapping[float, float]]:
        """Of each camera, how many frames were tracked within each age in ms."""
        found: defaultdict[str, dict[float, float]] = defaultdict(dict)
        for family in text_string_to_metric_families(self.client.get("/metrics").text):
            for sample in family.samples:
                labels = sample.labels
                if sample.name.endswith("bucket") and labels["milestone"] == "tracked":
                    found[labels["camera"]][1000 * float(labels["le"])] = sample.value
        return dict(found)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run the service for the time that was asked for."""
    clip = options.clip or (CLIP if CLIP.exists() else None)
    names = [f"camera{number}" for number in range(options.cameras)]
    cameras = {name: make_camera(clip, _made(folder / name), options.size) for name in names}
    settings = {name: _watched(camera.address()) for name, camera in cameras.items()}
    path = _write_settings(folder, options.weights or timed_card(folder), settings)
    command = [sys.executable, str(ROOT / "sightline.py"), "serve", str(path)]
    if options.weights is None:
        command = [sys.executable, __file__, "--serve", str(path)]
    for camera in cameras.values():
        camera.on()
    process = subprocess.Popen(command)
    try:
        address = yaml.safe_load(path.read_text())["http"]["listen"]
        with httpx.Client(base_url=f"http://{address}", timeout=30) as client:
            _wait(lambda: _is_ready(client))
            soak = Soak(client, process, cameras, settings)
            soak.watch(options.minutes)
            soak.remove_all()
            counts = soak.counts()
            num_events = client.get("/api/status").json()["events"]["kept"]
        process.terminate()
        code = process.wait(60)
    finally:
        process.kill()
        for camera in cameras.values():
            camera.off()
    if options.plot is not None:
        draw(soak, options.plot)
    return {
        **surroundings(),
        "minutes": options.minutes,
        "cameras": f"{options.cameras} x {type(cameras[names[0]]).__name__}, {options.size}",
        "film": clip.name if clip else "moving squares",
        "engine": "timed" if options.weights is None else "detector",
        "exit_code": code,
        "event_messages": num_events,
        "frames": _accounts(counts),
        "slopes": _slopes(soak, options.minutes),
        "first": asdict(soak.samples[0]),
        "last": asdict(soak.samples[-1]),
        "pss_mb": [sample.pss_mb for sample in soak.samples[5::6]],
        "p95_ms": [round(value, 1) for _, value in soak.p95_ms],
    }


def draw(soak: Soak, path: Path) -> None:
    """Draw what was seen over time."""
    from matplotlib.figure import Figure

    minutes = [sample.at_s / 60 for sample in soak.samples]
    curves = {
        "memory, MB (PSS)": (minutes, [sample.pss_mb for sample in soak.samples]),
        "descriptors": (minutes, [sample.descriptors for sample in soak.samples]),
        "threads": (minutes, [sample.threads for sample in soak.samples]),
        "latency, ms (p95)": ([at_s / 60 for at_s, _ in soak.p95_ms], [v for _, v in soak.p95_ms]),
    }
    figure = Figure(figsize=(8, 8), layout="constrained")
    axes = figure.subplots(len(curves), sharex=True)
    for axis, (title, (at, values)) in zip(axes, curves.items(), strict=True):
        axis.plot(at, values, marker=".")
        axis.set_title(title, loc="left", fontsize="medium")
        axis.set_ylim(0, 1.25 * max(values))
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("minutes")
    figure.savefig(path, dpi=100)


def _watched(address: str) -> dict[str, Any]:
    half = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]
    return {
        "source": address,
        "max_fps": 20,
        "zones": {"half": half},
        "lines": {"middle": [[0.5, 0], [0.5, 1]]},
        "rules": [
            {"name": "crossed", "kind": "line", "line": "middle"},
            {"name": "came", "kind": "enter", "zone": "half"},
            {"name": "crowd", "kind": "occupancy", "zone": "half", "at_least": 2},
        ],
    }


def _write_settings(folder: Path, weights: Path, cameras: Mapping[str, Any]) -> Path:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    tree = {
        "model": {"weights": str(weights.absolute()), "image_size": 320},
        "source": {"timeout_s": 3, "ring_mib": 1},
        "cameras": dict(cameras),
        "events": {
            "database": {"path": str(folder / "events.db")},
            "snapshots": {"directory": str(folder / "snapshots"), "keep_mib": 16},
            "jsonl": {"path": str(folder / "events.jsonl"), "rotate_mib": 1},
        },
        "http": {"listen": f"127.0.0.1:{port}"},
        "state": str(folder / "state"),
    }
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def _accounts(counts: Counts) -> dict[str, Any]:
    """Frames of all cameras together, and those nobody has accounted for."""
    sums: defaultdict[str, float] = defaultdict(float)
    for counted in counts.values():
        for name, value in counted.items():
            sums[name.removeprefix("sightline_")] += value
    skipped = sum(value for name, value in sums.items() if name.startswith("frames_skipped"))
    dropped = {name: v for name, v in sums.items() if name.startswith("frames_dropped") and v}
    lost = sums["frames_decoded"] - sums["frames_tracked"] - skipped - sum(dropped.values())
    return {
        "decoded": sums["frames_decoded"],
        "tracked": sums["frames_tracked"],
        "skipped": skipped,
        "dropped": {name.removeprefix("frames_dropped "): v for name, v in dropped.items()},
        "packets_late": sums["packets_late"],
        "reconnects": sums["reconnects"],
        "unaccounted": lost,
    }


def _slopes(soak: Soak, minutes: float) -> dict[str, Any]:
    """How much each grows in an hour, after the first minutes."""
    after_s = 60 * min(max(4.0, len(soak.cameras)), minutes * 2 / 3)
    samples = [sample for sample in soak.samples if sample.at_s > after_s]
    at_s = [sample.at_s for sample in samples]
    late = [(at, value) for at, value in soak.p95_ms if at > after_s]
    return {
        "after_s": after_s,
        "pss_mb_per_hour": _slope(at_s, [sample.pss_mb for sample in samples]),
        "descriptors_per_hour": _slope(at_s, [sample.descriptors for sample in samples]),
        "threads_per_hour": _slope(at_s, [sample.threads for sample in samples]),
        "pss_mb_per_hour_of": {
            name: _slope(at_s, [sample.pss_of.get(name, 0.0) for sample in samples])
            for name in samples[-1].pss_of
        },
        "p95_ms_per_hour": _slope([at for at, _ in late], [value for _, value in late]),
    }


def _slope(at_s: Sequence[float], values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    return round(float(np.polyfit(at_s, values, 1)[0]) * 3600, 2)


def _percentile(
    before: Mapping[str, Mapping[float, float]], now: Mapping[str, Mapping[float, float]]
) -> float:
    """The 95th percentile of the frames between, in ms; within a class it is a straight line."""
    classes: defaultdict[float, float] = defaultdict(float)
    for camera, counts in now.items():
        earlier = before.get(camera, {})
        if any(counts[limit] < earlier.get(limit, 0) for limit in counts):
            earlier = {}  # the camera was begun anew, and so were its counts
        for limit, count in counts.items():
            classes[limit] += count - earlier.get(limit, 0)
    limits = sorted(classes)
    sums = [classes[limit] for limit in limits]
    place = bisect_left(sums, 0.95 * sums[-1])
    lower, below = (limits[place - 1], sums[place - 1]) if place else (0.0, 0.0)
    upper = limits[place] if np.isfinite(limits[place]) else 2 * lower
    share = (0.95 * sums[-1] - below) / max(sums[place] - below, 1)
    return lower + share * (upper - lower)


def _entries(pid: int, kind: str) -> int:
    with suppress(FileNotFoundError, ProcessLookupError):
        return sum(1 for _ in Path(f"/proc/{pid}/{kind}").iterdir())
    return 0


def _pss_mb(pid: int) -> float:
    """Proportional set size without pages of files; 0 for a process that has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        fields = [line.split() for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:"))]
        return sum(int(kib) * 1024 / 1e6 for _, kib, _ in fields)
    return 0.0


def _name_of(pid: int) -> str:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return "ended"


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _is_ready(client: httpx.Client) -> bool:
    with suppress(httpx.TransportError):
        return client.get("/readyz").status_code == 200
    return False


def _wait(true: Callable[[], bool], timeout_s: float = 60.0) -> None:
    until_s = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < until_s, "not in time"
        time.sleep(0.1)


if __name__ == "__main__":
    main()
