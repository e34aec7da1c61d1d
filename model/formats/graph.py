# SPDX-License-Identifier: Apache-2.0
"""What every format gives: a graph made from weights, which is saved with a card."""

from pathlib import Path
from typing import Final, Protocol

from model.built import ArtefactEngine, Built
from model.card import Card

SUFFIXES: Final[dict[ArtefactEngine, str]] = {
    "openvino": ".safetensors",
    "onnx": ".onnx",
    "aoti": ".pt2",
}
"""How the name of an artefact ends, which is how it is told apart."""


class Graph(Protocol):
    """A detector in the form of one engine."""

    @property
    def built(self) -> Built:
        """How it was made; its parity is not measured yet."""
        ...

    def save(self, path: Path, card: Card) -> None:
        """Write the graph and its card; the file appears whole or not at all."""
        ...


def make_graph(
    engine: ArtefactEngine, weights: Path, input_shape: tuple[int, int, int, int]
) -> Graph:
    """Bring a detector into the form of an engine.

    Args:
        engine: What is to run it.
        weights: A weights file.
        input_shape: B, H, W, 3 for what is compiled for one shape; others take any.
    """
    if engine == "onnx":
        from model.formats.onnx import OnnxGraph

        return OnnxGraph.make(weights)
    if engine == "aoti":
        from model.formats.aoti import AotiPackage

        return AotiPackage.make(weights, input_shape)
    from model.formats.openvino import OpenVinoGraph

    return OpenVinoGraph.make(weights)
