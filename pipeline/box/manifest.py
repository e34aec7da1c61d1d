# SPDX-License-Identifier: Apache-2.0
"""What a bundle says it holds, and whether it does.

A bundle is a folder. `manifest.json` lists each of its files with size and digest; only the
manifest itself and its signature are not listed. A bundle is sound if every file that is listed
is there and equal, no other is there, and nothing in it is a link or leads out of it.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

import msgspec

from model.errors import shown
from pipeline.box.files import replace_file
from pipeline.errors import BundleRefused

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
SIGNATURE: Final = "manifest.sig"
UNLISTED: Final = frozenset({MANIFEST, SIGNATURE})
_MOST_BYTES: Final = 16 << 20
_BLOCK: Final = 1 << 20
_VERSION: Final = re.compile(r"[0-9][A-Za-z0-9.+!_-]{0,63}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_AGAIN: Final = "copy the bundle again"


class FileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a bundle."""

    sha256: str
    bytes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle is for, and its files by their path in it."""

    format: int = FORMAT
    version: str
    arch: str
    python: str
    """As 3.11: the interpreter its wheels were made for."""
    gpu: bool = False
    created: str
    files: dict[str, FileEntry]


def describe_files(bundle: Path) -> dict[str, FileEntry]:
    """Every file of a folder, as a manifest lists it.

    Raises:
        BundleRefused: something in it is neither a file nor a folder.
    """
    return {
        path: FileEntry(sha256=digest(bundle / path), bytes=(bundle / path).stat().st_size)
        for path in sorted(_files_in(bundle))
    }


def write_manifest(bundle: Path, manifest: Manifest) -> Path:
    """Write a manifest into its bundle; the same manifest gives the same bytes."""
    path = bundle / MANIFEST
    text = msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=1)
    replace_file(path, text + b"\n")
    return path


def read_manifest(bundle: Path) -> Manifest:
    """The manifest of a bundle, or of an installed version.

    Raises:
        BundleRefused: there is none, or it is not one that this version understands.
    """
    return parse_manifest(read_manifest_bytes(bundle), bundle / MANIFEST)


def read_manifest_bytes(bundle: Path) -> bytes:
    """The manifest as it lies there; what is signed is exactly this.

    Raises:
        BundleRefused: it cannot be read.
    """
    path = bundle / MANIFEST
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as failure:
        reason = (failure.strerror or str(failure)).lower()
        raise BundleRefused(f"{path}: cannot be read ({reason}); name a bundle's folder") from None
    if len(content) > _MOST_BYTES:
        raise BundleRefused(f"{path}: more than {_MOST_BYTES} bytes; no manifest is so long")
    return content


def parse_manifest(content: bytes, path: Path) -> Manifest:
    """A manifest from its bytes; the path is for what is said about them.

    Raises:
        BundleRefused: it is none that this version understands.
    """
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise BundleRefused(f"{path}: not a manifest ({fault}); {_AGAIN}") from None
    if manifest.format != FORMAT:
        raise BundleRefused(
            f"{path}: format {manifest.format}, and this version reads {FORMAT}; install a version "
            "between first"
        )
    if not _VERSION.fullmatch(manifest.version):
        raise BundleRefused(f"{path}: version {shown(manifest.version)!r} cannot name a folder")
    for name, entry in manifest.files.items():
        if not _stays_inside(name) or name in UNLISTED:
            raise BundleRefused(f"{path}: lists {shown(name)!r}, which cannot be a file of it")
        if not _DIGEST.fullmatch(entry.sha256):
            raise BundleRefused(f"{path}: {shown(name)} has no sha256 of 64 digits; {_AGAIN}")
    return manifest


def take_files(bundle: Path, manifest: Manifest, folder: Path) -> None:
    """Copy what a manifest lists into an empty folder, checked as it is copied.

    What a bundle's folder holds may change at any time; what was taken is what was checked.

    Raises:
        BundleRefused: the bundle holds something else; the message names the first file.
        OSError: the copy cannot be written.
    """
    found = frozenset(_files_in(bundle))
    for path in sorted(found - manifest.files.keys()):
        raise BundleRefused(f"{bundle / shown(path)}: the manifest does not list it; remove it")
    for path in sorted(manifest.files.keys() - found):
        raise BundleRefused(f"{bundle / path}: missing from the bundle; {_AGAIN}")
    for path, entry in sorted(manifest.files.items()):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        _take(bundle / path, entry, folder / path)


def _take(path: Path, entry: FileEntry, copy: Path) -> None:
    """Copy one file, no more of it than is listed."""
    found, size = hashlib.sha256(), 0
    with copy.open("xb") as taken:
        for block in _blocks(path):
            found.update(block)
            size += len(block)
            if size > entry.bytes:
                break
            taken.write(block)
    if size != entry.bytes:
        some = "more bytes" if size > entry.bytes else f"{size} bytes"
        raise BundleRefused(f"{path}: {some}, and the manifest says {entry.bytes}; {_AGAIN}")
    if found.hexdigest() != entry.sha256:
        raise BundleRefused(f"{path}: not what the manifest lists; {_AGAIN}")


def digest(path: Path) -> str:
    """The sha256 of a file, as 64 hexadecimal digits.

    Raises:
        BundleRefused: it cannot be read.
    """
    found = hashlib.sha256()
    for block in _blocks(path):
        found.update(block)
    return found.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    """The content of a plain file; nothing is waited for where another kind is put there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            while block := file.read(_BLOCK):
                yield block
    except OSError as failure:
        reason = (failure.strerror or str(failure)).lower()
        raise BundleRefused(f"{path}: cannot be read ({reason}); {_AGAIN}") from None


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    plain = name.isprintable() and "\\" not in name and str(path) == name
    return plain and not path.is_absolute() and ".." not in path.parts and name not in ("", ".")


def _files_in(bundle: Path, below: str = "") -> Iterator[str]:
    """Paths of the files of a bundle that a manifest lists; links and devices are refused."""
    try:
        entries = sorted(os.scandir(bundle / below), key=lambda entry: entry.name)
    except OSError as failure:
        reason = (failure.strerror or str(failure)).lower()
        raise BundleRefused(f"{bundle / below}: cannot be read ({reason})") from None
    for entry in entries:
        path = f"{below}{entry.name}"
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            yield from _files_in(bundle, f"{path}/")
        elif not stat.S_ISREG(mode):
            kind = "a link" if stat.S_ISLNK(mode) else "no plain file"
            raise BundleRefused(f"{bundle / shown(path)}: {kind}; a bundle has plain files only")
        elif path not in UNLISTED:
            yield path
