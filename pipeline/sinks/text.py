# SPDX-License-Identifier: Apache-2.0
"""Text files that grow by whole lines.

A killed run leaves what it had, a power cut all but the last second or so of it.
"""

import logging
from pathlib import Path
from typing import Final

from pipeline.errors import SinkError
from pipeline.sinks.partial import PartialFile, publish, reported

logger = logging.getLogger(__name__)

_SYNC_S: Final = 1.0


class TextWriter:
    """A text file in the making."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with reported(path):
            self._file = PartialFile(path, sync_delay_s=_SYNC_S)

    def append(self, lines: bytes) -> None:
        """Write whole lines: handed to the system at once, to the disk within a second."""
        with reported(self.path):
            self._file.write(lines)
            self._file.sync_soon()

    def finish(self) -> None:
        """Close the file and give it its final name."""
        with reported(self.path):
            self._file.close()
            publish(self.path)

    def abandon(self) -> None:
        """Close the file under its temporary name."""
        try:
            with reported(self.path):
                self._file.close()
        except SinkError as failure:
            logger.warning("%s", failure)
