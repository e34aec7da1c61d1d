# SPDX-License-Identifier: Apache-2.0
"""A file system whose power can be cut at any moment, for the programs that do so."""

import argparse
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from timing import surroundings

_QUIET_S: Final = 1.0
HERE: Final = Path(__file__).parent
PLANS: Final = (("none", 0), ("some", 80), ("none", 80), ("some", 80), ("all", 0))
"""How cuts alternate: what of the pending writes is kept, and after how many writes at most."""
_MKFS: Final = ("mkfs.ext4", "-q", "-b", "4096", "-E", "nodiscard,lazy_itable_init=0")


@dataclass(frozen=True, slots=True)
class Cut:
    """One cut that was made."""

    at_s: float
    num_pending: int
    """Sectors that no flush had made safe."""
    num_kept: int
    """Those of them that were kept all the same."""


class CutDisk:
    """An ext4 file system on a loop device over `losing_disk.py`."""

    def __init__(self, folder: Path, size_mib: int) -> None:
        self._file = folder / "disk"
        self._file.touch()
        image = folder / "image"
        with image.open("wb") as file:
            file.truncate(size_mib << 20)
        subprocess.run([*_MKFS, image], check=True)
        command = [sys.executable, str(HERE / "losing_disk.py"), self._file, image]
        pipe = subprocess.PIPE
        self._server = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == "ready\n"
        image.unlink()
        self.mounted = folder / "mounted"
        self.mounted.mkdir()
        subprocess.run(["mount", "-o", "loop", self._file, self.mounted], check=True)

    def cut(self, mode: str, after: int, seed: float, left: Path) -> Cut:
        """Write down what a cut leaves; the disk itself goes on.

        It comes `after` so many more writes, or after a second.
        """
        assert self._server.stdout is not None
        self._order(f"{mode} {after} {seed} {left}")
        if not select.select([self._server.stdout], [], [], _QUIET_S)[0]:
            self._order("now")
        at_s, num_pending, num_kept = map(float, self._server.stdout.readline().split())
        return Cut(at_s, int(num_pending), int(num_kept))

    def _order(self, line: str) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(f"{line}\n")
        self._server.stdin.flush()

    def close(self) -> None:
        """Unmount it, whatever it is used by."""
        subprocess.run(["umount", "-l", self.mounted], check=False)
        subprocess.run(["umount", "-l", self._file], check=False)
        self._server.kill()
        self._server.wait()


def count_cuts(
    description: str, tried: Callable[[Path, argparse.Namespace], dict[str, Any]]
) -> NoReturn:
    """The whole of a program that makes cuts; ends with 1 where `faults` of the result are."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--cuts", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    own_mounts()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        result = {**surroundings(), **tried(Path(name), options)}
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({name: value for name, value in result.items() if name != "each"}, indent=2))
    sys.exit(1 if result["faults"] else 0)


def own_mounts() -> None:
    """Go on in a mount namespace of its own, so that no mount outlives this program."""
    if "SIGHTLINE_OWN_MOUNTS" not in os.environ:
        os.environ["SIGHTLINE_OWN_MOUNTS"] = "1"
        command = ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv]
        os.execvp(command[0], command)
