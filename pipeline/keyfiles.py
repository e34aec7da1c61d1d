# SPDX-License-Identifier: Apache-2.0
"""Pairs of keys in files: `NAME.key` is the secret one, `NAME.pub` the public."""

import re
from pathlib import Path
from typing import Final

from model.errors import ConfigError
from model.files import write_new

SECRET_SUFFIX: Final = ".key"
PUBLIC_SUFFIX: Final = ".pub"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def write_pair(name: str, folder: Path, *, secret: bytes, public: bytes) -> tuple[Path, Path]:
    """Write a new pair and return its files, the secret one first; nothing is replaced.

    Raises:
        ConfigError: the name or the folder will not do, or one of the files exists.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r}: a key is named with letters, digits, dots and dashes")
    secret_path, public_path = folder / f"{name}{SECRET_SUFFIX}", folder / f"{name}{PUBLIC_SUFFIX}"
    for path in (secret_path, public_path):
        if path.exists():
            raise ConfigError(f"{path}: exists, and a key is never replaced; choose another name")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_new(secret_path, secret, 0o600)
        write_new(public_path, public)
    except OSError as failure:
        raise ConfigError(
            f"{secret_path}: cannot write this key ({reason(failure)}); choose another --output"
        ) from None
    return secret_path, public_path


def check_kept(path: Path) -> None:
    """See that nobody but its owner may read a secret key.

    Raises:
        ConfigError: others may.
    """
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise ConfigError(
            f"{path}: mode {mode:04o} lets others read this secret key; run: chmod 600 {path}"
        )


def reason(failure: OSError) -> str:
    """Why a file cannot be had, as it stands within a sentence."""
    return (failure.strerror or str(failure)).lower()
