# SPDX-License-Identifier: Apache-2.0
"""A float graph for OpenVINO, of any canvas: it starts without torch."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from model.artefact import graph_digest, save_artefact
from model.built import Built
from model.card import Card
from model.engines.openvino_graph import build_graph
from model.quantising import ANY_CANVAS, serialise


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenVinoGraph:
    """OpenVINO's own form: text and numbers."""

    built: Built
    text: bytes
    numbers: bytes

    @classmethod
    def make(cls, weights: Path) -> "OpenVinoGraph":
        """Convert the detector in a weights file."""
        text, numbers = serialise(build_graph(weights, ANY_CANVAS))
        built = Built(
            engine="openvino",
            graph_sha256=graph_digest(text, numbers),
            input_shape=ANY_CANVAS,
            made_with={name: version(name) for name in ("openvino", "torch")},
        )
        return cls(built=built, text=text, numbers=numbers)

    def save(self, path: Path, card: Card) -> None:
        save_artefact(path, self.text, self.numbers, card)
