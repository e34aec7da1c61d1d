# SPDX-License-Identifier: Apache-2.0
"""Log lines as JSON, one object a line, in which no secret is ever written.

Whatever a library says goes through here, FFmpeg's own messages included: known secrets are
replaced wherever they stand, addresses lose their credentials.
"""

import json
import logging
import re
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote

from pipeline.decoding.redaction import redact

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")
_HIDDEN = "***"
_LEAST = 4
"""Shorter secrets would be found in every other word."""


class Scrubber:
    """Takes secrets out of texts."""

    def __init__(self, secrets: Iterable[str]) -> None:
        spellings = {way for secret in secrets for way in (secret, quote(secret, safe=""))}
        longest_first = sorted((s for s in spellings if len(s) >= _LEAST), key=len, reverse=True)
        pattern = "|".join(map(re.escape, longest_first))
        self._secrets = re.compile(pattern) if pattern else None

    def __call__(self, text: str) -> str:
        """Return the text without them."""
        if self._secrets is not None:
            text = self._secrets.sub(_HIDDEN, text)
        return _ADDRESS.sub(lambda match: redact(match[0]), text)


class JsonLines(logging.Formatter):
    """Makes a line of a record: time, level, logger, message, and what `extra` gave."""

    def __init__(self, scrub: Scrubber) -> None:
        super().__init__()
        self._scrub = scrub

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "time": at,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._scrub(record.getMessage()),
        }
        for name in record.__dict__.keys() - _USUAL:
            line[name] = self._scrub(str(record.__dict__[name]))
        if record.exc_info:
            line["trace"] = self._scrub(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


_USUAL: Collection[str] = frozenset(
    {*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Logs:
    """How a service's processes log."""

    secrets: tuple[str, ...] = field(default=(), repr=False)
    """What no line may hold."""

    def begin(self, level: int | str) -> None:
        """Send everything that is logged in this process to stderr, as JSON lines."""
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonLines(Scrubber(self.secrets)))
        logging.basicConfig(level=level, handlers=[handler], force=True)
