# SPDX-License-Identifier: Apache-2.0
"""Files that appear whole or not at all."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model.errors import WeightsError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Lend a name beside `path`; what is written there takes its place when the block ends well."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
