# SPDX-License-Identifier: Apache-2.0
"""Where a box keeps what: one table, below a root that tests can move."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT_VARIABLE: Final = "SIGHTLINE_ROOT"
USER: Final = "sightline"


@dataclass(frozen=True, slots=True)
class Layout:
    """The files and folders of an installed box."""

    root: Path = Path("/")

    @classmethod
    def of_this_box(cls) -> "Layout":
        """The layout below `$SIGHTLINE_ROOT`, else below /."""
        return cls(Path(os.environ.get(ROOT_VARIABLE) or "/"))

    @property
    def versions(self) -> Path:
        """Folder of the installed versions."""
        return self.root / "opt/sightline"

    @property
    def current(self) -> Path:
        """Link to the version that runs."""
        return self.versions / "current"

    @property
    def previous(self) -> Path:
        """Link to the version before, if there was one."""
        return self.versions / "previous"

    @property
    def update_journal(self) -> Path:
        """How far an update has come; there only while one goes on, or was cut off."""
        return self.versions / "update.json"

    @property
    def update_lock(self) -> Path:
        """Keeps a second update away."""
        return self.versions / "update.lock"

    @property
    def taken(self) -> Path:
        """A bundle that is being installed, where nobody but root can change it any more."""
        return self.versions / "taken"

    @property
    def backups(self) -> Path:
        """Settings as they were before an update, by its version; root's alone."""
        return self.versions / "backup"

    @property
    def database_backups(self) -> Path:
        """Databases as they were before an update, by its version; the service's own."""
        return self.state / "backup"

    @property
    def settings(self) -> Path:
        """Settings of the service."""
        return self.root / "etc/sightline/serve.yaml"

    @property
    def environment(self) -> Path:
        """Secrets of the service, as NAME=value."""
        return self.root / "etc/sightline/environment"

    @property
    def trusted(self) -> Path:
        """Public keys of those whose bundles are installed."""
        return self.root / "etc/sightline/trusted"

    @property
    def state(self) -> Path:
        """Where the service works: its database, pictures and state."""
        return self.root / "var/lib/sightline"

    @property
    def database(self) -> Path:
        """Events, where the settings name no other file."""
        return self.state / "events.db"

    @property
    def snapshots(self) -> Path:
        """Pictures of events."""
        return self.state / "snapshots"

    @property
    def cache(self) -> Path:
        """Compiled engines."""
        return self.root / "var/cache/sightline"

    @property
    def command(self) -> Path:
        """The command on everyone's path, a link into the version that runs."""
        return self.root / "usr/local/bin/sightline"

    @property
    def unit(self) -> Path:
        """What systemd starts."""
        return self.root / "etc/systemd/system/sightline.service"

    def version(self, name: str) -> Path:
        """Folder of one installed version."""
        return self.versions / name
