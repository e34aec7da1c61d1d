# SPDX-License-Identifier: Apache-2.0
"""Text files that grow by whole lines, so that a killed run leaves what it had."""

import logging
from pathlib import Path

from pipeline.errors import SinkError
from pipeline.sinks.partial import PartialFile, publish, reported

logger = logging.getLogger(__name__)


class TextWriter:
    """A text file in the making."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with reported(path):
            self._file = PartialFile(path)

    def append(self, lines: bytes) -> None:
        """Write whole lines, and hand them to the system at once."""
        with reported(self.path):
            self._file.write(lines)

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
