# SPDX-License-Identifier: Apache-2.0
"""An ONNX graph of any batch and canvas, for ONNX Runtime and for programs of others.

Pictures go in as they are, uint8 RGB with channels last; what else a program must know stands in
the file's notes: the names of the classes, and how a picture is brought onto the canvas.
"""

import json
import logging
import warnings
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Final

import torch

from model.built import Built, Nms
from model.card import CARD_KEY, Card
from model.config import Suppression
from model.engines.onnx import INPUT, OUTPUT
from model.errors import MissingExtra
from model.files import write_whole
from model.pixels import PixelDetector
from model.quantising import ANY_CANVAS
from model.weights import load_detector

try:
    import onnx
    import onnxscript  # noqa: F401 - torch's exporter needs it
except ImportError:
    raise MissingExtra(
        "exporting to ONNX needs onnx and onnxscript (extra: onnx); install them with: "
        "pip install -e '.[onnx]'"
    ) from None

from model.formats.suppression import add_suppression

OPSET: Final = 18
_EXAMPLE: Final = (2, 64, 96, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxGraph:
    """A model without notes, which are added when it is saved."""

    built: Built
    model: bytes

    @classmethod
    def make(cls, weights: Path) -> "OnnxGraph":
        """Export the detector in a weights file."""
        detector, _ = load_detector(weights)
        return cls._of(_export(PixelDetector(detector).eval()))

    def with_suppression(self, settings: Suppression, *, num_classes: int) -> "OnnxGraph":
        """Return the same graph with a suppression behind its predictions."""
        model = onnx.load_from_string(self.model)
        add_suppression(model, settings, num_classes=num_classes)
        return self._of(model, Nms(**settings.model_dump(exclude={"multi_label"})))

    @classmethod
    def _of(cls, model: onnx.ModelProto, nms: Nms | None = None) -> "OnnxGraph":
        onnx.checker.check_model(model)
        content = model.SerializeToString()
        built = Built(
            engine="onnx",
            graph_sha256=sha256(content).hexdigest(),
            input_shape=ANY_CANVAS,
            made_with={name: version(name) for name in ("onnx", "torch")},
            nms=nms,
        )
        return cls(built=built, model=content)

    def save(self, path: Path, card: Card) -> None:
        assert card.built is not None
        model = onnx.load_from_string(self.model)
        notes = {
            CARD_KEY: card.model_dump_json(),
            "classes": json.dumps(card.classes),
            "preprocessing": card.built.preprocessing.model_dump_json(),
            "licence": card.licence,
        }
        onnx.helper.set_model_props(model, notes)
        write_whole(path, model.SerializeToString(), "this artefact")


def _export(detector: PixelDetector) -> onnx.ModelProto:
    """Trace the detector with batch, height and width left open."""
    open_axes = {
        0: torch.export.Dim("batch", min=1, max=4096),
        1: 32 * torch.export.Dim("rows", min=1, max=512),
        2: 32 * torch.export.Dim("columns", min=1, max=512),
    }
    example = torch.zeros(_EXAMPLE, dtype=torch.uint8)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own parts
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.export.export(detector, (example,), dynamic_shapes=(open_axes,))
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
    assert exported is not None
    model: onnx.ModelProto = exported.model_proto
    _tidy(model)
    return model


def _tidy(model: onnx.ModelProto) -> None:
    """Name the open axes, and drop what the exporter says about where it was run."""
    graph = model.graph
    for value, axes in ((graph.input[0], ("batch", "height", "width", None)),
                        (graph.output[0], ("batch", None, "anchors"))):  # fmt: skip
        for side, name in zip(value.type.tensor_type.shape.dim, axes, strict=True):
            if name is not None:
                side.dim_param = name
    graph.name = "sightline"
    del graph.value_info[:]
    del graph.metadata_props[:]
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
