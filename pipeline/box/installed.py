# SPDX-License-Identifier: Apache-2.0
"""One installed version beside the one that runs: made from a bundle, and asked to do things.

What it does, it does as the service's user, and at low priority while the version before runs, so
that cameras come first. Its children hold the update's lock.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from pipeline.box.layout import ROOT_VARIABLE, Layout
from pipeline.box.manifest import MANIFEST, Manifest
from pipeline.box.rights import service_user
from pipeline.box.settings import read_environment
from pipeline.errors import UpdateFailed

MAKE_VERSION: Final = "deploy/make_version.sh"
_LONGEST_S: Final = 1800.0
_SHOWN_LINES: Final = 3
_NICE: Final = ("nice", "-n", "5")


class Installed:
    """A version in its folder, which need not be there yet."""

    def __init__(self, layout: Layout, version: str, lock: int) -> None:
        self._layout, self._version, self._lock = layout, version, lock
        self.folder = layout.version(version)

    @property
    def is_whole(self) -> bool:
        """Whether it was installed to the end."""
        return (self.folder / MANIFEST).is_file()

    def make(self, bundle: Path, manifest: Manifest) -> None:
        """Install it from a bundle that was checked, by the bundle's own script.

        Raises:
            UpdateFailed: it cannot be installed.
        """
        environment = (
            {ROOT_VARIABLE: str(self._layout.root)} if self._layout.root != Path("/") else {}
        )
        python = Path(sys.base_prefix, "bin", f"python{manifest.python}")
        if python.exists() and not shutil.which(python.name):
            environment["PYTHON"] = str(python)
        script = ["sh", str(bundle / MAKE_VERSION), str(bundle)]
        self._run([*_NICE, *script], os.environ | environment, place=self._layout.versions)
        if not self.is_whole:
            raise UpdateFailed(f"{self.folder}: not whole after {MAKE_VERSION}")

    def call(self, *arguments: str) -> str:
        """Have its `sightline` do something as the service's user; returns what it printed.

        Raises:
            UpdateFailed: it did not end well.
        """
        command = [str(self.folder / "venv/bin/sightline"), *arguments]
        return self._run_as_service(command)

    def call_beside(self, *arguments: str) -> str:
        """As `call`, at low priority, for while the version before runs.

        Raises:
            UpdateFailed: it did not end well.
        """
        command = [*_NICE, str(self.folder / "venv/bin/sightline"), *arguments]
        return self._run_as_service(command)

    def disown(self) -> None:
        """Take away the mark that it is whole."""
        (self.folder / MANIFEST).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove it, first of all the mark."""
        self.disown()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _service_environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self._layout.state),
            "SIGHTLINE_CACHE": str(self._layout.cache),
            "MPLCONFIGDIR": str(self._layout.cache / "matplotlib"),
            ROOT_VARIABLE: str(self._layout.root),
            **read_environment(self._layout.environment),
        }

    def _run_as_service(self, command: Sequence[str]) -> str:
        place = self._layout.state
        return self._run(command, self._service_environment(), place=place, user=service_user())

    def _run(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        place: Path,
        user: str | None = None,
    ) -> str:
        """Run it in a folder; Python imports from there, so for root no other may write it."""
        own = command[len(_NICE) :] if command[0] == _NICE[0] else command
        what = " ".join(own[:2])
        try:
            done = subprocess.run(
                command,
                env=environment,
                cwd=place,
                user=user,
                group=user,
                extra_groups=[] if user else None,
                pass_fds=(self._lock,),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_LONGEST_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as fault:
            raise UpdateFailed(f"{what}: {fault}") from None
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()[-_SHOWN_LINES:]
            raise UpdateFailed(f"{what}: ended with {done.returncode}: {'; '.join(said)}")
        return done.stdout
