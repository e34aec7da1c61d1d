# SPDX-License-Identifier: Apache-2.0
"""What a published file holds, whichever container it came in: tensors under its own names."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from model.card import CARD_KEY, Card, card_of, read_header
from model.errors import WeightsError, shown, unreadable
from model.layouts import Tensors, name_first
from model.pickles import Opaque, module_tensors, read_pickle
from model.weights import read_tensors

ZIP_START: Final = b"PK\x03\x04"
LEGACY_STARTS: Final = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
STARTS: Final = {
    b"<?xml": "an OpenVINO export",
    b"<net": "an OpenVINO export",
    b"\x89HDF": "a Keras file",
    b"<!DOCTYPE": "a web page, so the download went wrong",
    b"<html": "a web page, so the download went wrong",
    b"version https://git-lfs": "a Git LFS pointer, which names a file and does not hold it",
}
SUFFIXES: Final = {
    ".onnx": "an ONNX export",
    ".xml": "an OpenVINO export",
    ".bin": "the numbers of an OpenVINO export",
    ".engine": "a TensorRT engine",
    ".trt": "a TensorRT engine",
    ".tflite": "a TensorFlow Lite export",
    ".pb": "a TensorFlow export",
    ".torchscript": "a TorchScript export",
}
"""What is no checkpoint, by how a file starts or is called."""
WEIGHTS_KEYS: Final = ("ema", "model")
"""Where a checkpoint has its network, the averaged one first."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contents:
    """What a published file holds, under its own names."""

    tensors: Tensors
    """Numbers with a point in float32."""
    classes: dict[int, str] | None
    """Names of classes by position, where the file has them."""
    num_classes: int | None
    """As its description of the network has it; the tensors decide."""
    licence: str


def read_contents(path: Path) -> Contents:
    """Read a published file: safetensors, or a checkpoint of torch. Nothing in it is run.

    Raises:
        WeightsError: it is neither, or damaged, or holds what no checkpoint needs.
    """
    start = _read_start(path)
    if start.startswith(ZIP_START):
        contents = _from_checkpoint(path)
    else:
        _refuse_others(path, start)
        contents = _from_safetensors(path)
    _check_values(path, contents.tensors)
    return contents


def _read_start(path: Path) -> bytes:
    if path.is_dir():
        raise WeightsError(f"{path}: a folder; name the checkpoint itself")
    try:
        with path.open("rb") as file:
            return file.read(32)
    except OSError as failure:
        raise unreadable(path, failure) from None


def _refuse_others(path: Path, start: bytes) -> None:
    """Say what a file is that is often given by mistake."""
    if start.startswith(LEGACY_STARTS):
        raise WeightsError(
            f"{path}: written by a torch older than 1.6, in a form that cannot be read safely; if "
            "you trust it, load it with torch and save its state_dict() with torch 1.6 or later"
        )
    if start[8:9] == b"{":
        return
    kinds = [what for begin, what in STARTS.items() if start.lstrip().startswith(begin)]
    kinds += ["a TensorFlow Lite export"] if start[4:8] == b"TFL3" else []
    kinds += [what for suffix, what in SUFFIXES.items() if path.suffix.lower() == suffix]
    if kinds:
        raise WeightsError(f"{path}: {kinds[0]}; give the checkpoint itself (.pt or .safetensors)")


def _from_safetensors(path: Path) -> Contents:
    header = read_header(path)
    found = header.get("__metadata__")
    metadata = found if isinstance(found, dict) else {}
    if CARD_KEY in metadata:
        raise _ours(path, card_of(path, header))
    return Contents(
        tensors=read_tensors(path),
        classes=_json_names(path, metadata["names"]) if "names" in metadata else None,
        num_classes=None,
        licence=_one_line(metadata.get("licence") or metadata.get("license")),
    )


def _ours(path: Path, card: Card) -> WeightsError:
    if card.form == "quantised":
        return WeightsError(
            f"{path}: an int8 artefact of sightline export, which runs as it is; "
            "it holds no weights to convert"
        )
    return WeightsError(f"{path}: a Sightline weights file already; use it as it is")


def _json_names(path: Path, text: str) -> dict[int, str]:
    try:
        names = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        raise WeightsError(f"{path}: the class names in its metadata are not JSON") from None
    return _names(path, names)


def _from_checkpoint(path: Path) -> Contents:
    tree = read_pickle(path)
    if isinstance(tree, Opaque):
        tree = {"model": tree}
    if not isinstance(tree, dict):
        raise WeightsError(f"{path}: no checkpoint: it holds a {type(tree).__name__}")
    network = _network(tree)
    names = _attribute(network, "names")
    description = _attribute(network, "yaml")
    declared = description.get("nc") if isinstance(description, dict) else None
    return Contents(
        tensors=_plain(path, _tensors_of(path, network)),
        classes=None if names is None else _names(path, names),
        num_classes=declared if isinstance(declared, int) else None,
        licence=_one_line(tree.get("licence") or tree.get("license")),
    )


def _network(tree: dict[Any, Any]) -> Any:
    """Return the module or the dict of tensors in which a checkpoint has its weights."""
    for key in ("state_dict", *WEIGHTS_KEYS):
        if isinstance(tree.get(key), dict | Opaque):
            return tree[key]
    return tree


def _attribute(network: Any, name: str) -> Any:
    return network.attribute(name) if isinstance(network, Opaque) else None


def _tensors_of(path: Path, network: Any) -> Tensors:
    if isinstance(network, Opaque):
        return module_tensors(path, network)
    others = [str(name) for name, value in network.items() if not isinstance(value, Tensor)]
    if others:
        raise WeightsError(f"{path}: no checkpoint of a network: it holds {name_first(others)}")
    return {str(name): tensor for name, tensor in network.items()}


def _plain(path: Path, tensors: Tensors) -> Tensors:
    """Give every tensor numbers of its own, in float32 where they have a point."""
    declared, actual = sum(tensor.numel() for tensor in tensors.values()), path.stat().st_size
    if declared > actual:
        raise WeightsError(f"{path}: its tensors claim {declared} numbers, the file has {actual} B")
    return {
        name: tensor.detach()
        .to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)
        .contiguous()
        for name, tensor in tensors.items()
    }


def _names(path: Path, names: object) -> dict[int, str]:
    """Return class names by position, from a list or a map."""
    items: Iterable[tuple[object, object]] = ()
    if isinstance(names, list | tuple):
        items = enumerate(names)
    elif isinstance(names, dict):
        items = names.items()
    try:
        return {int(str(place)): _one_line(name) for place, name in items if name is not None}
    except ValueError:
        raise WeightsError(f"{path}: its class names are not numbered") from None


def _one_line(text: object) -> str:
    return shown(str(text)) if isinstance(text, str | int) else ""


def _check_values(path: Path, tensors: Tensors) -> None:
    wrong = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if wrong:
        raise WeightsError(f"{path}: holds NaN or infinite values: {name_first(wrong)}")
    negative = [
        name for name, tensor in tensors.items()
        if name.endswith(".running_var") and (tensor < 0).any()
    ]  # fmt: skip
    if negative:
        raise WeightsError(f"{path}: holds negative variances: {name_first(negative)}")
