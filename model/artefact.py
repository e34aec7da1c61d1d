# SPDX-License-Identifier: Apache-2.0
"""An OpenVINO graph on disk, of any canvas, int8 or float, in a safetensors file.

The file's two tensors are OpenVINO's own form, text that describes the graph and numbers. Neither
torch nor the quantiser is needed to read them. What is read may come from anybody, and OpenVINO
trusts it: before it is shown a graph, the text is checked to name only layers that our detectors
are made of, and numbers that are there.
"""

import hashlib
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Final

import numpy as np
import openvino
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from model.card import CARD_KEY, Card, read_card, read_header
from model.engines.openvino_core import get_core
from model.errors import WeightsError
from model.files import write_whole

TENSORS: Final = ("openvino.bin", "openvino.xml")
MAX_BYTES: Final = {"openvino.bin": 512 * 2**20, "openvino.xml": 16 * 2**20}
MAX_VALUES: Final = 2**30
"""Numbers in any one tensor of the graph: many times what the largest canvas makes."""
LAYERS: Final = frozenset(
    {"Add", "AvgPool", "Broadcast", "Concat", "Const", "Convert", "Convolution", "CumSum",
     "Divide", "FakeConvert", "FakeQuantize", "Gather", "Greater", "GroupConvolution",
     "Interpolate", "MaxPool", "Mod", "Multiply", "Parameter", "ReduceSum", "Reshape", "Result",
     "ShapeOf", "Sigmoid", "Slice", "SoftMax", "Softmax", "Split", "StridedSlice", "Subtract",
     "Swish", "Transpose", "Unsqueeze", "VariadicSplit"}
)  # fmt: skip
"""Kinds of layers that a detector is made of."""


def graph_digest(text: bytes, numbers: bytes) -> str:
    """Return what the card says about the tensors, to notice damage."""
    return hashlib.sha256(hashlib.sha256(text).digest() + numbers).hexdigest()


def content_digest(path: Path) -> str:
    """Return the digest of the graph that a file really holds, whatever its card says."""
    numbers, text = _read_tensors(path)
    return graph_digest(text, numbers)


def save_artefact(path: Path, text: bytes, numbers: bytes, card: Card) -> None:
    """Write a graph and its card; the file appears whole or not at all."""
    tensors = {
        "openvino.bin": np.frombuffer(numbers, np.uint8),
        "openvino.xml": np.frombuffer(text, np.uint8),
    }
    content = save(tensors, metadata={CARD_KEY: card.model_dump_json()})
    write_whole(path, content, "this artefact")


def read_graph(path: Path, input_shape: tuple[int, int, int, int]) -> openvino.Model:
    """Return the graph of an artefact for one shape of images, B H W 3.

    Raises:
        WeightsError: the file is damaged, or holds what no export of ours writes.
    """
    card = read_card(path)
    numbers, text = _read_tensors(path)
    made = card.quantisation or card.built
    if made is None or graph_digest(text, numbers) != made.graph_sha256:
        raise WeightsError(f"{path}: the artefact is damaged; export it again")
    _check_text(path, text, len(numbers))
    try:
        graph = get_core().read_model(text, numbers)
        graph.reshape(list(input_shape))
    except (RuntimeError, ValueError, TypeError):
        raise _foreign(path, "OpenVINO cannot read its graph") from None
    _check_graph(path, graph, input_shape, rows=4 + len(card.classes))
    return graph


def _read_tensors(path: Path) -> tuple[bytes, bytes]:
    """Return numbers and text, each of a size that is looked at before it is read."""
    header = read_header(path)
    found = {name: item for name, item in header.items() if name != "__metadata__"}
    if sorted(found) != list(TENSORS):
        raise _foreign(path, f"it holds {len(found)} other tensors")
    for name in TENSORS:
        shape = found[name]["shape"]
        if found[name].get("dtype") != "U8" or len(shape) != 1 or shape[0] > MAX_BYTES[name]:
            raise _foreign(path, f"{name} is {found[name].get('dtype')} of {shape}")
    try:
        with safe_open(path, "numpy") as file:
            numbers, text = (file.get_tensor(name).tobytes() for name in TENSORS)
    except (SafetensorError, OSError) as fault:
        raise WeightsError(f"{path}: the tensors cannot be read: {fault}") from None
    return numbers, text


def _check_text(path: Path, text: bytes, num_bytes: int) -> None:
    """Refuse a graph of unknown layers, or one with numbers that the file does not hold."""
    if b"<!" in text:  # declarations of types and entities, which we never write
        raise _foreign(path, "its graph is not plain XML")
    try:
        layers = ElementTree.fromstring(text).findall("./layers/layer")
        unknown = {layer.get("type", "") for layer in layers} - LAYERS
        blocks = [
            (int(data.get("offset", 0)), int(data.get("size", 0)))
            for layer in layers
            for data in layer.findall("data")
            if layer.get("type") == "Const"
        ]
        sides = [
            [int(side.text or "") for side in port.findall("dim")]
            for layer in layers
            for port in layer.findall("./output/port")
        ]
    except (ElementTree.ParseError, ValueError, RecursionError):
        raise _foreign(path, "its graph is not plain XML") from None
    if unknown:
        raise _foreign(path, f"its graph has layers of kind {min(unknown)[:40]!r}")
    if any(start < 0 or size < 0 or start + size > num_bytes for start, size in blocks):
        raise _foreign(path, "its graph names numbers that it does not hold")
    if any(math.prod(map(abs, shape)) > MAX_VALUES for shape in sides):
        raise _foreign(path, "its graph has tensors of absurd size")


def _check_graph(
    path: Path, graph: openvino.Model, input_shape: tuple[int, ...], *, rows: int
) -> None:
    """Refuse a graph that reads or writes something else than the engine does."""
    batch, height, width, _ = input_shape
    anchors = sum(height // stride * (width // stride) for stride in (8, 16, 32))
    wanted = [("u8", list(input_shape)), ("f32", [batch, rows, anchors])]
    found = [
        (port.get_element_type().get_type_name(), [int(side) for side in port.get_shape()])
        for port in (*graph.inputs, *graph.outputs)
        if port.get_partial_shape().is_static
    ]
    if found != wanted:
        raise _foreign(path, f"its graph has ports {found}, expected {wanted}")
    outputs = (port for node in graph.get_ops() for port in node.outputs())
    for shape in (port.get_partial_shape() for port in outputs):
        if shape.is_static and math.prod(shape.to_shape()) > MAX_VALUES:
            raise _foreign(path, "its graph has tensors of absurd size")


def _foreign(path: Path, why: str) -> WeightsError:
    return WeightsError(f"{path}: not an artefact of sightline export: {why}")
