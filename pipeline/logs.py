# SPDX-License-Identifier: Apache-2.0
"""Log lines as JSON, one object a line, or entries of the journal, in which is never a secret.

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
from pipeline.journald import JournalHandler, is_journal, priority

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}://[^\s'\"<>]+")
"""The scheme is bounded, as a long word would else be searched again from each of its letters."""
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
        line |= {name: self._scrub(text) for name, text in _extra(record).items()}
        if record.exc_info:
            line["trace"] = self._scrub(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


class JournalFields(logging.Formatter):
    """Makes the fields of an entry in the journal: as above, with the place in the code."""

    def __init__(self, scrub: Scrubber) -> None:
        super().__init__()
        self._scrub = scrub

    def __call__(self, record: logging.LogRecord) -> dict[str, str]:
        """Return them; the trace is part of the message, as only that is shown."""
        trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        extra = {name.upper(): self._scrub(text) for name, text in _extra(record).items()}
        return extra | {
            "MESSAGE": self._scrub(record.getMessage() + trace),
            "PRIORITY": str(priority(record.levelno)),
            "SYSLOG_IDENTIFIER": "sightline",
            "LOGGER": record.name,
            "CODE_FILE": record.pathname,
            "CODE_LINE": str(record.lineno),
            "CODE_FUNC": record.funcName or "",
        }


_USUAL: Collection[str] = frozenset(
    {*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName"}
)


def _extra(record: logging.LogRecord) -> dict[str, str]:
    """What a record was given besides what each has."""
    return {name: str(record.__dict__[name]) for name in record.__dict__.keys() - _USUAL}


@dataclass(frozen=True, slots=True, kw_only=True)
class Logs:
    """How a service's processes log."""

    secrets: tuple[str, ...] = field(default=(), repr=False)
    """What no line may hold."""

    def begin(self, level: int | str) -> None:
        """Send all that is logged in this process to stderr as JSON lines, or to the journal.

        To the journal where that is where stderr leads to.
        """
        scrub = Scrubber(self.secrets)
        handler: logging.Handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonLines(scrub))
        if is_journal(sys.stderr):
            handler = JournalHandler(JournalFields(scrub), otherwise=handler)
        logging.basicConfig(level=level, handlers=[handler], force=True)
