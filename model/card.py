# SPDX-License-Identifier: Apache-2.0
"""What a file of ours is, read without running anything in it.

Weights and OpenVINO graphs are safetensors files, read from their first bytes alone. Such a file
starts with the length of its header, 8 bytes, then the header, JSON. Ours carries a card in the
header's metadata; ONNX files carry it in a note, and packages of compiled code as an entry.
"""

import itertools
import json
import math
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from model.built import Built
from model.config import Settings, describe_faults
from model.errors import WeightsError, unreadable
from model.onnx_file import read_notes
from model.package import read_package_card
from model.quantisation import Quantisation
from model.released import Released
from model.scales import ScaleName
from model.trained import Trained

CARD_KEY: Final = "sightline"
"""Entry of the file's metadata that holds the card, as JSON."""
MAX_HEADER_BYTES: Final = 16 * 2**20
MAX_CLASS_WIDTH: Final = 4096
PICKLE_STARTS: Final = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


class Card(Settings):
    """What a weights file holds and where it came from."""

    scale: ScaleName
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    class_width: Annotated[int, Field(ge=1, le=MAX_CLASS_WIDTH)]
    """Channels of the head's class branch."""
    box_groups: Literal[1, 4]
    """Groups of the head's box branch."""
    form: Literal["fused", "unfused", "training", "quantised", "built"]
    """Fused weights run; unfused ones can be trained further, those in training with the branch
    they were trained with; a quantised graph, and a built one, of floats, only run."""
    image_size: Annotated[int, Field(ge=32)] = 640
    """Long side of the images it was trained on, in pixels."""
    dtype: Literal["float32", "float16", "int8"] = "float32"
    """Of the numbers on disk; what is read is float32."""
    source: str
    """Name of the file these weights were imported from, or of the run that trained them."""
    source_sha256: str = ""
    source_layout: str = ""
    """How the file these weights were imported from names its tensors, in words."""
    licence: str = "unknown"
    quantisation: Quantisation | None = None
    """Present if and only if the form is `quantised`."""
    built: Built | None = None
    """Present if and only if the form is `built`."""
    trained: Trained | None = None
    """Present if we trained these weights."""
    released: Released | None = None
    """Present if these weights, or those they were exported from, have a name of their own."""
    format_version: Literal[1] = 1

    @model_validator(mode="after")
    def _form_and_quantisation_agree(self) -> "Card":
        if (self.form == "quantised") != (self.quantisation is not None):
            raise PydanticCustomError(
                "form", "a quantised file, and no other, says how it was quantised"
            )
        if (self.form == "built") != (self.built is not None):
            raise PydanticCustomError("form", "a built file, and no other, says how it was built")
        return self


def read_card(path: Path) -> Card:
    """Say what a weights file or an artefact is, without running anything in it."""
    if path.suffix == ".onnx":
        text = read_notes(path).get(CARD_KEY)
    elif path.suffix == ".pt2":
        text = read_package_card(path)
    else:
        return card_of(path, read_header(path))
    if text is None:
        raise WeightsError(f"{path}: not an artefact of sightline export: it has no card")
    return parse_card(path, text)


def card_of(path: Path, header: dict[str, Any]) -> Card:
    """Return the card in a safetensors header that was read from `path`."""
    metadata = header.get("__metadata__")
    text = metadata.get(CARD_KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise WeightsError(
            f"{path}: not a Sightline weights file, though it is a safetensors file; "
            f"convert it with: sightline import {path} --output PATH"
        )
    return parse_card(path, text)


def parse_card(path: Path, text: str | bytes) -> Card:
    """Return the card that was found in a file as JSON."""
    try:
        return Card.model_validate_json(text)
    except ValidationError as invalid:
        faults = " ".join(describe_faults(invalid).split())
        raise WeightsError(f"{path}: its card is not one this version reads: {faults}") from None


def read_header(path: Path) -> dict[str, Any]:
    """Return the header of a safetensors file: its tensors by name, and `__metadata__`."""
    start, text, file_bytes = _read_start(path)
    if file_bytes == 0:
        raise WeightsError(f"{path}: the file is empty")
    if start.startswith(PICKLE_STARTS):
        raise WeightsError(
            f"{path}: a checkpoint in pickle form, which can run code when opened; "
            f"convert it with: sightline import {path} --output PATH"
        )
    length = int.from_bytes(start[:8], "little")
    if start[8:] != b"{" or length > MAX_HEADER_BYTES:
        raise WeightsError(f"{path}: not a safetensors file")
    if len(text) < length:
        raise WeightsError(f"{path}: the file is cut short inside its header")
    header, data_bytes = _parse_header(path, text)
    expected = 8 + length + data_bytes
    if file_bytes < expected:
        raise WeightsError(
            f"{path}: the file is cut short: {file_bytes} bytes of the {expected} it declares"
        )
    return header


def count_values(header: dict[str, Any]) -> int:
    """Return how many numbers the tensors of a header hold."""
    return sum(math.prod(item["shape"]) for name, item in header.items() if name != "__metadata__")


def _read_start(path: Path) -> tuple[bytes, bytes, int]:
    """Return the first 9 bytes, the header that follows the first 8, and the file's size."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
            file.seek(8)
            length = min(int.from_bytes(start[:8], "little"), MAX_HEADER_BYTES)
            return start, file.read(length), path.stat().st_size
    except OSError as failure:
        raise unreadable(path, failure) from None


def _parse_header(path: Path, text: bytes) -> tuple[dict[str, Any], int]:
    """Return the header as a tree, and how many bytes of tensors it declares."""
    try:
        header = json.loads(text)
        ends = [item["data_offsets"][1] for name, item in header.items() if name != "__metadata__"]
        shapes = [item["shape"] for name, item in header.items() if name != "__metadata__"]
        data_bytes = max(ends, default=0)
        counts = itertools.chain([data_bytes], *shapes)
        well_formed = all(isinstance(count, int) and count >= 0 for count in counts)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        well_formed = False
    if not well_formed:
        raise WeightsError(f"{path}: not a safetensors file: its header is damaged")
    return header, data_bytes
