# SPDX-License-Identifier: Apache-2.0
"""Built artefacts on disk, so that the second start is quick.

A cache never fails: an entry that is missing or damaged is built again, and a folder that cannot
be written costs a warning.
"""

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from model.files import replacing

logger = logging.getLogger(__name__)

MAGIC: Final = b"SIGHTLINE ARTEFACT 1\n"
DIGEST_BYTES: Final = hashlib.sha256().digest_size


def cache_folder() -> Path:
    """Return where artefacts are kept: `$SIGHTLINE_CACHE`, else the user's cache."""
    if chosen := os.environ.get("SIGHTLINE_CACHE"):
        return Path(chosen)
    if caches := os.environ.get("XDG_CACHE_HOME"):
        return Path(caches) / "sightline"
    try:
        return Path.home() / ".cache" / "sightline"
    except RuntimeError:  # a user without a home, as containers have: nothing can be kept
        return Path(os.devnull) / "sightline"


def artefact_path(key: dict[str, Any]) -> Path:
    """Return the file of an artefact that depends on everything in `key`."""
    text = json.dumps(key, sort_keys=True)
    return cache_folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.artefact"


def read_artefact(path: Path) -> bytes | None:
    """Return what was written, or nothing if it is not there whole."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    start = len(MAGIC) + DIGEST_BYTES
    artefact = content[start:]
    if content[:start] != MAGIC + hashlib.sha256(artefact).digest():
        logger.info("%s: a damaged cache entry, which is built again", path)
        return None
    return artefact


def write_artefact(path: Path, artefact: bytes) -> None:
    """Keep an artefact if the folder allows it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with replacing(path) as temporary:
            temporary.write_bytes(MAGIC + hashlib.sha256(artefact).digest() + artefact)
    except OSError as failure:
        _warn_once(path.parent, failure.strerror or "unknown cause")


@contextmanager
def making(path: Path) -> Iterator[None]:
    """Have others wait who make the same artefact, in this process or another; they find it then.

    Where the folder allows no file nothing is kept either, and nobody waits.
    """
    with ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = held.enter_context(path.with_suffix(".making").open("w"))
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as failure:
            _warn_once(path.parent, failure.strerror or "unknown cause")
        yield


@lru_cache
def _warn_once(folder: Path, reason: str) -> None:
    logger.warning(
        "%s: cannot keep built engines there (%s), so each start builds them again; "
        "set SIGHTLINE_CACHE to a folder that can be written",
        folder,
        reason,
    )
