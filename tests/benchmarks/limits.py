# SPDX-License-Identifier: Apache-2.0
"""A small machine made of this one: a control group with a memory limit, and some of the cores.

The group is one of version 2 where that has the memory controller, else of version 1; root alone
may make one. Swap is not counted: on a small machine there is none, so none must be in use here.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ROOT: Final = Path("/sys/fs/cgroup")
_ENTER: Final = 'echo $$ > "$0/cgroup.procs" && exec taskset -c "$@"'


@dataclass(frozen=True)
class Limits:
    """A control group with a limit."""

    folder: Path
    version: int
    cores: int

    def command(self, command: Sequence[str]) -> list[str]:
        """The command that runs another one within the limits."""
        chosen = sorted(os.sched_getaffinity(0))[: self.cores]
        return ["sh", "-c", _ENTER, str(self.folder), ",".join(map(str, chosen)), *command]

    def used_bytes(self) -> int:
        """What processes hold, without files that are merely cached."""
        held = self._numbers("memory.stat")
        if self.version == 2:
            return held["anon"] + held["shmem"]
        return held["total_rss"] + held.get("total_shmem", 0)

    def peak_bytes(self) -> int:
        """What was charged at most, cached files included."""
        name = "memory.peak" if self.version == 2 else "memory.max_usage_in_bytes"
        return int((self.folder / name).read_text())

    def num_killed(self) -> int:
        """Processes that the kernel has ended for want of memory."""
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        return self._numbers(name)["oom_kill"]

    def _numbers(self, name: str) -> dict[str, int]:
        lines = (self.folder / name).read_text().split("\n")
        pairs = (line.split() for line in lines if line)
        return {key: int(value) for key, value in pairs}


@contextmanager
def limited(cores: int, memory_bytes: int) -> Iterator[Limits]:
    """Make a small machine and remove it, once all its processes have ended."""
    version, parent = _parent()
    folder = parent / f"sightline-bench-{os.getpid()}"
    folder.mkdir()
    limit = "memory.max" if version == 2 else "memory.limit_in_bytes"
    (folder / limit).write_text(str(memory_bytes))
    try:
        yield Limits(folder, version, cores)
    finally:
        _remove(folder)


def _parent() -> tuple[int, Path]:
    if "memory" in _controllers(_ROOT):
        return 2, _ROOT
    if (_ROOT / "memory").is_dir():
        return 1, _ROOT / "memory"
    raise SystemExit(f"{_ROOT}: no memory controller; run as root where control groups are mounted")


def _controllers(folder: Path) -> Sequence[str]:
    listed = folder / "cgroup.subtree_control"
    return listed.read_text().split() if listed.is_file() else ()


def _remove(folder: Path) -> None:
    until_s = time.monotonic() + 10
    while True:
        try:
            return folder.rmdir()
        except OSError:  # a process is still on its way out
            if time.monotonic() > until_s:
                raise
            time.sleep(0.1)
