# SPDX-License-Identifier: Apache-2.0
"""The outside of an ONNX file: its notes, and the digest of the rest. No library is needed.

An ONNX file is a protocol buffer: fields one after another, each a number with a kind and then
its content. Field 14 holds a note, a text by name (https://onnx.ai/onnx/repo-docs/IR.html).
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from model.errors import WeightsError, unreadable

NOTE: Final = 14
_NUMBER, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5  # kinds of content
_NAME, _TEXT = 1, 2  # fields of a note
_MAX_NOTE_BYTES: Final = 16 * 2**20
_BLOCK: Final = 2**20


class _Field(NamedTuple):
    number: int
    start: int
    content: int
    """Where the content begins."""
    end: int


def read_notes(path: Path) -> dict[str, bytes]:
    """Return the texts that a file carries beside its graph, by name.

    Raises:
        WeightsError: the file cannot be read, or is no protocol buffer.
    """
    notes: dict[str, bytes] = {}
    with _opened(path) as file:
        for field in _fields(path, file, _size(file)):
            if field.number == NOTE and field.end - field.content <= _MAX_NOTE_BYTES:
                parts = _note(path, file, field)
                notes[parts.get(_NAME, b"").decode(errors="replace")] = parts.get(_TEXT, b"")
    return notes


def graph_digest(path: Path) -> str:
    """Return the SHA-256 of everything but the notes."""
    digest = hashlib.sha256()
    with _opened(path) as file:
        for field in _fields(path, file, _size(file)):
            if field.number != NOTE:
                file.seek(field.start)
                left = field.end - field.start
                while left:
                    block = file.read(min(left, _BLOCK))
                    digest.update(block)
                    left -= len(block)
    return digest.hexdigest()


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as failure:
        raise unreadable(path, failure) from None


def _size(file: BinaryIO) -> int:
    return file.seek(0, 2)


def _note(path: Path, file: BinaryIO, field: _Field) -> dict[int, bytes]:
    """Return name and text of a note."""
    parts: dict[int, bytes] = {}
    for part in _fields(path, file, field.end, start=field.content):
        file.seek(part.content)
        parts[part.number] = file.read(part.end - part.content)
    return parts


def _fields(path: Path, file: BinaryIO, end: int, start: int = 0) -> Iterator[_Field]:
    """Walk from field to field without reading what they hold."""
    place = start
    while place < end:
        file.seek(place)
        tag = _varint(path, file)
        kind = tag & 7
        if kind == _NUMBER:
            content = file.tell()
            _varint(path, file)
            after = file.tell()
        elif kind == _BYTES:
            length = _varint(path, file)
            content = file.tell()
            after = content + length
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            content = file.tell()
            after = content + (8 if kind == _EIGHT_BYTES else 4)
        else:
            raise WeightsError(f"{path}: not an ONNX file")
        if after > end:
            raise WeightsError(f"{path}: not an ONNX file, or one cut short")
        yield _Field(tag >> 3, place, content, after)
        place = after


def _varint(path: Path, file: BinaryIO) -> int:
    """Read a number of 7 bits a byte, the lowest first."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise WeightsError(f"{path}: not an ONNX file, or one cut short")
