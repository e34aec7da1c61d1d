# SPDX-License-Identifier: Apache-2.0
"""Files that appear whole or not at all, also where the power fails.

A rename alone does not do: what was written may reach the disk after the name, which then stands
for a file that is empty or full of zeros. So the content goes first, then the name, and only what
has returned from here is said to be there.
"""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from model.errors import WeightsError

_OWNER_WRITES: Final = 0o644


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Lend a name beside `path`; what is written there takes its place when the block ends well."""
    temporary = _beside(path)
    try:
        yield temporary
        put_in_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def put_in_place(temporary: Path, path: Path) -> None:
    """Give a written file, which lies in the same folder, its name; both have reached the disk."""
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)


def write_new(path: Path, content: bytes, mode: int = _OWNER_WRITES) -> None:
    """Write a file where there is none.

    Raises:
        FileExistsError: there is one, which is left as it is.
    """
    temporary = _beside(path)
    try:
        temporary.touch(mode)
        temporary.write_bytes(content)
        sync(temporary)
        _link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def remove_leftovers(folder: Path, name: str = "*") -> None:
    """Remove what killed writers of these files have left; nobody else may be writing them."""
    for path in folder.glob(f".{name}.*.partial"):
        path.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, so that they are there after a power cut."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):
        sync(folder.parent)


def sync(path: Path) -> None:
    """Have a file's content, or the names in a folder, reach the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: bytes, what: str) -> None:
    """Write a file that appears whole or not at all; `what` is its name in the error.

    Raises:
        WeightsError: it cannot be written.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as failure:
        raise WeightsError(f"{path}: cannot write {what}: {failure.strerror}") from None


def _link(temporary: Path, path: Path) -> None:
    """Give a file a second name, or another one where a file has one name only, as on FAT."""
    try:
        path.hardlink_to(temporary)
    except OSError as failure:
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        if failure.errno not in (errno.EPERM, errno.EOPNOTSUPP):
            raise
        temporary.replace(path)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
