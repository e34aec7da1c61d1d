# SPDX-License-Identifier: Apache-2.0
"""One file over HTTP, whole or not at all, gone on with where it was cut.

What came so far lies beside the target as `NAME.partial`, and `NAME.partial.version` says which
version of the file it is of (its ETag or date). The rest is asked for under the condition that it
still is that one; a server that cannot say, or knows no ranges, sends everything again. A server is
given up when it is silent for too long, when all takes too long, and when it sends too much.
"""

import fcntl
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO, Final, cast

from model.errors import FetchError
from model.files import put_in_place

CHUNK_BYTES: Final = 2**18
RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
OnProgress = Callable[[int, int | None], None]
"""Is told how many bytes are there, and of how many, where that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much patience there is."""

    silence_s: float = 30.0
    total_s: float = 4 * 3600.0
    max_bytes: int = 2 * 2**30
    attempts: int = 4
    """Tries in a row that bring nothing new; one that does is not counted."""
    pause_s: float = 1.0


def download(
    url: str,
    target: Path,
    *,
    size_bytes: int | None = None,
    limits: Limits | None = None,
    on_progress: OnProgress = lambda _, __: None,
) -> None:
    """Fetch a file; what a cut connection left is kept for the next call.

    Args:
        url: Where it is, http or https.
        target: Where it is to be.
        size_bytes: What it must have, where that is known.
        limits: How much patience there is.
        on_progress: Is told how far it is.

    Raises:
        FetchError: it cannot be had, or is not what it should be.
    """
    partial = target.with_name(f"{target.name}.partial")
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("ab") as file:
            _lock(file, partial)
            _Download(url, partial, file, size_bytes, limits or Limits(), on_progress).run()
        put_in_place(partial, target)
        _version_path(partial).unlink(missing_ok=True)
    except OSError as failure:
        raise FetchError(f"{partial}: cannot be written: {failure.strerror or failure}") from None


class _Cut(Exception):  # noqa: N818 - it says what happened
    """The connection ended early; asking for the rest may help."""


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Follows to other places, but not from https to where anybody may listen or change it."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if req.type == "https" and not newurl.startswith("https:"):
            raise FetchError(f"{req.full_url}: leads to {newurl}, which is not https; not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Download:
    """One download under way."""

    def __init__(
        self,
        url: str,
        partial: Path,
        file: IO[bytes],
        size_bytes: int | None,
        limits: Limits,
        on_progress: OnProgress,
    ) -> None:
        self._url, self._file, self._limits = url, file, limits
        self._version = _version_path(partial)
        self._wanted = size_bytes
        self._on_progress = on_progress
        self._received = partial.stat().st_size
        self._until_s = time.monotonic() + limits.total_s
        self._open = urllib.request.build_opener(_SameScheme).open

    def run(self) -> None:
        """Ask until all is there, or until nothing more comes."""
        idle = 0
        while True:
            before, reason = self._received, ""
            try:
                return self._ask()
            except _Cut as cut:
                reason = str(cut)
            except urllib.error.HTTPError as refused:
                self._refused(refused)
                reason = f"the server says {refused.code} {refused.reason}"
            except (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError) as failure:
                reason = _words(failure)
            idle = 0 if self._received > before else idle + 1
            if idle == self._limits.attempts or time.monotonic() > self._until_s:
                kept = f"; {self._received:,} bytes are kept to go on from" * bool(self._received)
                raise FetchError(f"{self._url}: {reason}{kept}")
            time.sleep(self._limits.pause_s)

    def _ask(self) -> None:
        """Make one request, and take what comes of it."""
        request = urllib.request.Request(self._url, headers={"User-Agent": "sightline"})
        version = self._version.read_text() if self._version.exists() else ""
        if not version:
            self._begin_anew()
        elif self._received:
            request.add_header("Range", f"bytes={self._received}-")
            request.add_header("If-Range", version)
        with cast(HTTPResponse, self._open(request, timeout=self._limits.silence_s)) as response:
            total = self._total(response)
            if total is not None and self._wanted not in (None, total):
                self._begin_anew()
                raise FetchError(
                    f"{self._url}: the server has {total:,} bytes, expected {self._wanted:,}; "
                    "it is another file"
                )
            self._version.write_text(
                response.headers["ETag"] or response.headers["Last-Modified"] or ""
            )
            self._take(response, total)

    def _total(self, response: HTTPResponse) -> int | None:
        """Return the size of the whole file, after making room if all of it comes again."""
        if response.status == 206:
            found = RANGE.fullmatch(response.headers["Content-Range"] or "")
            if found is None or int(found[1]) != self._received:
                self._begin_anew()
                raise _Cut("the server sends another part than was asked for")
            return int(found[3])
        self._begin_anew()
        length = response.headers["Content-Length"]
        return int(length) if length and length.isdigit() else None

    def _take(self, response: HTTPResponse, total: int | None) -> None:
        most = self._limits.max_bytes if total is None else total
        while chunk := _read(response):
            self._received += len(chunk)
            if self._received > min(most, self._limits.max_bytes):
                self._begin_anew()
                raise FetchError(f"{self._url}: the server sends more than {most:,} bytes")
            self._file.write(chunk)
            self._on_progress(self._received, total)
            if time.monotonic() > self._until_s:
                raise _Cut(f"not whole after {self._limits.total_s:g} s")
        if total is not None and self._received < total:
            raise _Cut(f"the connection was cut at {self._received:,} of {total:,} bytes")
        if self._wanted not in (None, self._received):
            got = self._received
            self._begin_anew()
            raise FetchError(f"{self._url}: {got:,} bytes came, expected {self._wanted:,}")

    def _refused(self, refused: urllib.error.HTTPError) -> None:
        """Raise where asking again is of no use."""
        refused.close()
        if refused.code == 416:  # what is here is no beginning of what is there
            self._begin_anew()
        elif refused.code < 500 and refused.code not in (408, 429):
            raise FetchError(f"{self._url}: the server says {refused.code} {refused.reason}")

    def _begin_anew(self) -> None:
        self._file.truncate(0)
        self._received = 0
        self._version.unlink(missing_ok=True)


def _read(response: HTTPResponse) -> bytes:
    try:
        return response.read1(CHUNK_BYTES)
    except (OSError, HTTPException) as failure:
        raise _Cut(_words(failure)) from None


def _version_path(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.version")


def _lock(file: IO[bytes], partial: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FetchError(f"{partial}: another fetch is writing it; wait for its end") from None


def _words(failure: Exception) -> str:
    cause = getattr(failure, "reason", failure)
    if isinstance(cause, TimeoutError):
        return "the server is silent"
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
