# SPDX-License-Identifier: Apache-2.0
"""Who starts and stops the service: systemd, or a program of another init system."""

import subprocess
from pathlib import Path
from typing import Final, Protocol

from pipeline.errors import UpdateFailed

_UNIT: Final = "sightline.service"
_STOP_S: Final = 180.0
_RUNS_SYSTEMD: Final = Path("/run/systemd/system")


class ServiceManager(Protocol):
    """Starts and stops the service of this box."""

    def stop(self) -> None:
        """End the service; returns once it has ended. Nothing to do if it does not run."""
        ...

    def start(self) -> None:
        """Start what `current` leads to; need not wait for it."""
        ...

    def failure(self) -> str:
        """Why the service that was started does not run; empty while it does, or may still."""
        ...


class Systemd:
    """The unit of this box."""

    def stop(self) -> None:
        _call(["systemctl", "stop", _UNIT])

    def start(self) -> None:
        subprocess.run(["systemctl", "reset-failed", _UNIT], check=False, capture_output=True)
        # Not waited for: the unit may be ready only after its first compile.
        _call(["systemctl", "start", "--no-block", _UNIT])

    def failure(self) -> str:
        shown = subprocess.run(
            ["systemctl", "show", _UNIT, "-p", "ActiveState", "-p", "Job", "-p", "NRestarts"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        known = dict(line.split("=", 1) for line in shown.stdout.splitlines() if "=" in line)
        if known.get("ActiveState") == "failed":
            return "its unit failed"
        if known.get("ActiveState") == "inactive" and known.get("Job", "0") in ("", "0"):
            return "it has ended"
        restarts = known.get("NRestarts", "0")
        return "" if restarts == "0" else f"systemd has restarted it {restarts} times"


class InitScript:
    """A program that is called with start, stop or status, as those of init.d are."""

    def __init__(self, program: Path) -> None:
        self._program = str(program)

    def stop(self) -> None:
        _call([self._program, "stop"])

    def start(self) -> None:
        _call([self._program, "start"])

    def failure(self) -> str:
        status = subprocess.run([self._program, "status"], capture_output=True, check=False)
        return "" if status.returncode == 0 else "it does not run"


def manager_of_this_box(program: Path | None, *, needed: bool) -> ServiceManager:
    """The program if one is given, else systemd.

    Raises:
        UpdateFailed: it is needed, and systemd does not run here.
    """
    if program is not None:
        return InitScript(program)
    if needed and not _RUNS_SYSTEMD.is_dir():
        raise UpdateFailed(
            "systemd does not run here; give a program that takes start, stop and status with "
            "--service PROGRAM"
        )
    return Systemd()


def _call(command: list[str]) -> None:
    """Run a command; what it starts keeps neither our pipes nor our descriptors."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=False, timeout=_STOP_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as fault:
        raise UpdateFailed(f"{' '.join(command)}: {fault}") from None
    if done.returncode:
        raise UpdateFailed(f"{' '.join(command)}: ended with {done.returncode}")
