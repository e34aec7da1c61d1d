# SPDX-License-Identifier: Apache-2.0
"""Which boxes belong to the fleet: the public keys in a folder, read anew when it changes."""

import logging
from collections.abc import Mapping
from pathlib import Path

from model.errors import ConfigError
from pipeline.keyfiles import PUBLIC_SUFFIX
from pipeline.transport.curve import read_public

logger = logging.getLogger(__name__)

_Look = tuple[tuple[str, int, int, int], ...]
"""Name, number, size and time of change of each file."""


class Allowed:
    """The names of boxes by their keys; used by one thread."""

    def __init__(self, folder: Path) -> None:
        """Read the folder.

        Raises:
            ConfigError: it is none, or a file in it is no public key.
        """
        if not folder.is_dir():
            raise ConfigError(
                f"{folder}: no folder (boxes); make it and copy the .pub file of each box into it"
            )
        for file in sorted(folder.glob(f"*{PUBLIC_SUFFIX}")):
            read_public(file)
        self._folder = folder
        self._look: _Look = ()
        self._names: dict[str, str] = {}
        self.refresh()

    @property
    def names(self) -> Mapping[str, str]:
        """By key, in hexadecimal."""
        return self._names

    def refresh(self) -> bool:
        """Read the folder again if it changed; whether any key lost its place."""
        look = self._look_at()
        if look == self._look:
            return False
        before, self._look = self._names, look
        self._names = self._read()
        for key, name in before.items():
            if self._names.get(key) != name:
                logger.warning("%s: its key %s is taken away", name, key)
        for key, name in self._names.items():
            if before.get(key) != name:
                logger.info("%s: may come in with the key %s", name, key)
        return any(self._names.get(key) != name for key, name in before.items())

    def _look_at(self) -> _Look:
        found = []
        for file in sorted(self._folder.glob(f"*{PUBLIC_SUFFIX}")):
            try:
                stat = file.stat()
            except OSError:  # it was taken away meanwhile
                continue
            found.append((file.name, stat.st_ino, stat.st_size, stat.st_mtime_ns))
        return tuple(found)

    def _read(self) -> dict[str, str]:
        names: dict[str, str] = {}
        for file in sorted(self._folder.glob(f"*{PUBLIC_SUFFIX}")):
            try:
                name = names.setdefault(read_public(file).hex(), file.stem)
            except ConfigError as error:  # one that is being written, or spoilt, bars no other
                logger.warning("%s", error)
                continue
            if name != file.stem:
                logger.warning("%s: holds the key of %s; each box needs one of its own", file, name)
        return names
