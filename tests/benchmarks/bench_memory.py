"""Memory of a run with more and more cameras: proportional set size over all its processes.

    python tests/benchmarks/bench_memory.py --weights t.safetensors [--placement processes]

Each count of cameras is a run of its own; when every camera is tracked and has settled, the sum of
`Pss` over the tree of processes is read every second. Pages that several processes share count
once in all. The figure for one more camera is the slope of a line through the counts.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from live import ROOT, make_camera
from timing import surroundings

LIMIT_S = 120.0
_KIB = 1024


def main() -> None:
    """Measure every count of cameras and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--clip", type=Path, help="what the cameras show; moving squares if not")
    parser.add_argument("--size", default="1920x1080")
    parser.add_argument("--cameras", type=int, default=4, help="most cameras in one run")
    parser.add_argument("--settle", type=float, default=20, help="seconds before reading")
    parser.add_argument("--readings", type=int, default=10, help="one each second")
    parser.add_argument("--save-video", action="store_true")
    parser.add_argument("--placement", choices=("threads", "processes"), default="threads")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        camera = make_camera(options.clip, Path(folder), options.size)
        camera.on()
        try:
            runs = [
                read_run(options, [camera.address()] * count, Path(folder) / str(count))
                for count in range(1, options.cameras + 1)
            ]
        finally:
            camera.off()
    totals = [run["pss_mb"] for run in runs]
    result = {
        **surroundings(),
        "cameras": f"{type(camera).__name__}, {options.size}",
        "placement": options.placement,
        "save_video": options.save_video,
        "runs": runs,
        "target_mb_per_camera": 80,
    }
    if len(totals) > 1:
        slope, base = np.polyfit(range(1, len(totals) + 1), totals, 1)
        result["base_mb"], result["mb_per_camera"] = round(base, 1), round(slope, 1)
    print(json.dumps(result, indent=2))


def read_run(options: argparse.Namespace, addresses: list[str], output: Path) -> dict[str, Any]:
    """Start the command on these cameras, read its memory, and end it."""
    command = [
        *(sys.executable, ROOT / "sightline.py", "run", *addresses, "--quiet"),
        *("--model", options.weights, "--output", output),
        *("--set", f"placement={options.placement}"),
        *(["--save-video"] if options.save_video else []),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        wait_for_tracks(process, output, len(addresses))
        time.sleep(options.settle)
        readings = []
        for _ in range(options.readings):
            readings.append({pid: pss_mb(pid) for pid in tree_of(process.pid)})
            time.sleep(1)
        names = {pid: name_of(pid) for pid in readings[-1]}
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
    return {
        "cameras": len(addresses),
        "pss_mb": round(median(sum(reading.values()) for reading in readings), 1),
        "growth_mb": round(sum(readings[-1].values()) - sum(readings[0].values()), 1),
        "processes": {f"{names[pid]} {pid}": round(mb, 1) for pid, mb in readings[-1].items()},
    }


def wait_for_tracks(process: "subprocess.Popen[bytes]", output: Path, count: int) -> None:
    """Wait until every camera has lines in its file."""
    until_s = time.monotonic() + LIMIT_S
    while sum(1 for path in output.glob("*.jsonl.partial") if path.stat().st_size) < count:
        if process.poll() is not None or time.monotonic() > until_s:
            raise SystemExit("the run did not track every camera")
        time.sleep(0.1)


def tree_of(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        parents[int(status.parent.name)] = int(fields[1])
    tree = [pid]
    for ancestor in tree:
        tree.extend(child for child, parent in parents.items() if parent == ancestor)
    return tree


def pss_mb(pid: int) -> float:
    """Proportional set size; 0 for a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) * _KIB / 1e6 for line in lines if line.startswith("Pss:"))


def name_of(pid: int) -> str:
    """What the process is, by its arguments."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        return "ended"
    return next((word for word in words[1:] if "pipeline" in word or "sightline" in word), words[0])


if __name__ == "__main__":
    main()
