"""Set the peers up, each in an environment of its own.

    python tests/benchmarks/peers/prepare.py FOLDER

Makes `FOLDER/ultralytics` and `FOLDER/tutorial` with plain pip, as the peers' own instructions
say; nothing is left out, patched or replaced by a stand-in. What decides their speed is pinned
here, and every result records what was installed. Ultralytics brings torch and torchvision, on
Linux with CUDA (6 GB on disk); only the processor is used. Name a registry of CPU builds to pip,
for instance by PIP_EXTRA_INDEX_URL, to save the space. What stands in FOLDER already is kept.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

PINS = {
    "ultralytics": (
        "ultralytics==8.4.190",
        "openvino==2026.4.1",
        "nncf==3.4.0",
        "lap==0.5.13",
        "torch==2.15.0",
        "torchvision==0.29.2",
        "safetensors>=0.4.5",
    ),
    "tutorial": (
        "supervision==0.31.2",
        "trackers==2.6.1",
        "openvino==2026.4.1",
        "opencv-python==5.0.0.93",
    ),
}
"""What is installed for each peer; its name is that of its folder."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=PINS, help="one of the peers")
    options = parser.parse_args()
    for peer in [options.only] if options.only else PINS:
        prepare(options.folder, peer)


def prepare(folder: Path, peer: str) -> None:
    """Make one peer's environment, unless it is there and has what is pinned."""
    python = python_of(folder, peer)
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder / peer], check=True)
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    print(f"{peer}: {' '.join(PINS[peer])}", file=sys.stderr)
    subprocess.run([*pip, *PINS[peer]], check=True)


def python_of(folder: Path, peer: str) -> Path:
    """The interpreter of a peer's environment, whether it exists or not."""
    return folder.absolute() / peer / "bin" / "python"


def surroundings_of(folder: Path) -> dict[str, str]:
    """Variables of the peers' processes: settings beside them, nothing installed or asked for."""
    settings = folder.absolute() / "settings"
    settings.mkdir(parents=True, exist_ok=True)
    quiet = {"YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true", "YOLO_VERBOSE": "false"}
    return {**os.environ, **quiet, "YOLO_CONFIG_DIR": str(settings)}


if __name__ == "__main__":
    main()
