# SPDX-License-Identifier: Apache-2.0
"""Files and links of a box that take the place of others, also across a power cut."""

import os
from contextlib import suppress
from pathlib import Path

from model.files import sync


def replace_file(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Put a file in the place of what lies there; owner and mode of what lay there are kept."""
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        with suppress(FileNotFoundError):
            before = path.stat()
            os.fchown(file.fileno(), before.st_uid, before.st_gid)
            os.fchmod(file.fileno(), before.st_mode & 0o7777)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync(path.parent)


def replace_link(path: Path, target: str) -> None:
    """Have a link lead elsewhere, in one step."""
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)
    beside.replace(path)
    sync(path.parent)


def remove_file(path: Path) -> None:
    """Remove a file or a link, if it is there, for good."""
    path.unlink(missing_ok=True)
    sync(path.parent)
