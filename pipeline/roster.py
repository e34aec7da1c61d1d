# SPDX-License-Identifier: Apache-2.0
"""Which streams are wanted, as whoever runs the service says, from any thread.

It holds what is wanted and not what is to be done: the supervisor compares it with what there is,
so a camera that is changed twice in a moment is begun once.
"""

import threading
from collections.abc import Iterable, Mapping

from pipeline.decoding.inputs import Source
from pipeline.errors import CameraRefused

_NOT_IN_NAMES = "@/"  # a pool's name goes on behind a slash, a second branch's name behind an @


class Roster:
    """The streams wanted, by name."""

    def __init__(self, sources: Iterable[Source], room: int) -> None:
        self._room = room
        self._wanted: Mapping[str, Source] = {source.name: source for source in sources}
        self._lock = threading.Lock()

    @property
    def wanted(self) -> Mapping[str, Source]:
        """What is wanted now; never changed, only replaced."""
        return self._wanted

    def add(self, source: Source) -> None:
        """Want another stream.

        Raises:
            CameraRefused: its name is taken or none, or there is no room.
        """
        with self._lock:
            name = source.name
            if name in self._wanted:
                raise CameraRefused(f"{name}: there is a camera of this name; choose another")
            if not name or any(letter in _NOT_IN_NAMES for letter in name):
                raise CameraRefused(
                    f"{name or 'name'}: a name may be neither empty nor hold @ or /"
                )
            if len(self._wanted) >= self._room:
                raise CameraRefused(
                    f"{name}: there are {self._room} cameras, the most; raise service.most_cameras"
                )
            self._wanted = {**self._wanted, name: source}

    def remove(self, name: str) -> None:
        """Want a stream no longer.

        Raises:
            CameraRefused: there is none of this name.
        """
        with self._lock:
            self._known(name)
            self._wanted = {key: kept for key, kept in self._wanted.items() if key != name}

    def replace(self, source: Source) -> None:
        """Want a stream from elsewhere, or with other settings.

        Raises:
            CameraRefused: there is none of this name.
        """
        with self._lock:
            self._known(source.name)
            self._wanted = {**self._wanted, source.name: source}

    def _known(self, name: str) -> None:
        if name not in self._wanted:
            names = ", ".join(self._wanted) or "none"
            raise CameraRefused(f"{name}: there is no camera of this name; there are {names}")
