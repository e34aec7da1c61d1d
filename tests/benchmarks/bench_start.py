"""From the call of the command to the first track, compiled model cached: median of several.

python tests/benchmarks/bench_start.py --weights t.safetensors --clip people.mp4
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import spread, surroundings

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Run the command until its track file has content, several times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    first_run = start(options)  # fills the cache
    seconds = [start(options) for _ in range(options.runs)]
    print(
        json.dumps(
            {
                **surroundings(),
                "uncached_s": round(first_run, 2),
                "cached_s": spread(seconds),
                "help_s": spread([help_seconds() for _ in range(options.runs)]),
            },
            indent=2,
        )
    )


def start(options: argparse.Namespace) -> float:
    """Seconds until the first tracked frame is on disk."""
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / f"{options.clip.stem}.jsonl.partial"
        began = time.perf_counter()
        process = subprocess.Popen(
            [
                *(sys.executable, ROOT / "sightline.py", "run", options.clip, "--quiet"),
                *("--model", options.weights, "--output", folder),
            ]
        )
        while not (lines.exists() and lines.stat().st_size):
            if process.poll() is not None:
                raise SystemExit("the run ended before its first track")
            time.sleep(0.005)
        seconds = time.perf_counter() - began
        process.terminate()
        process.wait()
        return seconds


def help_seconds() -> float:
    """Seconds that `sightline --help` takes."""
    began = time.perf_counter()
    subprocess.run([sys.executable, ROOT / "sightline.py", "--help"], capture_output=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
