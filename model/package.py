# SPDX-License-Identifier: Apache-2.0
"""The outside of a package of compiled code (`.pt2`, a zip file): its card, and its digest.

Nothing in it is run or loaded here, so that a card can be read before anybody trusts the code.
"""

import hashlib
import zipfile
from pathlib import Path
from typing import Final

from model.errors import WeightsError, unreadable

CARD_NAME: Final = "extra/sightline.json"
"""The card's place below the folder that every entry of the file is in."""
_MAX_CARD_BYTES: Final = 16 * 2**20


def read_package_card(path: Path) -> bytes | None:
    """Return the card of a package as JSON, or nothing if it has none."""
    with _opened(path) as package:
        for entry in package.infolist():
            if _is_card(entry) and entry.file_size <= _MAX_CARD_BYTES:
                return _content(path, package, entry)
    return None


def add_card(path: Path, text: str) -> None:
    """Put a card into a package that has none."""
    with zipfile.ZipFile(path, "a") as package:
        folder = package.namelist()[0].split("/", 1)[0]
        package.writestr(f"{folder}/{CARD_NAME}", text)


def package_digest(path: Path) -> str:
    """Return the SHA-256 of all entries but the card: their names and what they hold."""
    digest = hashlib.sha256()
    with _opened(path) as package:
        for entry in package.infolist():
            if not _is_card(entry):
                digest.update(entry.filename.encode() + b"\0")
                digest.update(hashlib.sha256(_content(path, package, entry)).digest())
    return digest.hexdigest()


def _is_card(entry: zipfile.ZipInfo) -> bool:
    return entry.filename.split("/", 1)[-1] == CARD_NAME


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        raise WeightsError(f"{path}: not a package of compiled code, or one cut short") from None
    except OSError as failure:
        raise unreadable(path, failure) from None


def _content(path: Path, package: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    try:
        return package.read(entry)
    except (zipfile.BadZipFile, OSError, RuntimeError):
        raise WeightsError(f"{path}: the artefact is damaged; export it again") from None
