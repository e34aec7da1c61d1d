# SPDX-License-Identifier: Apache-2.0
"""Export of floats: make a graph, prove that it is near to eager torch, write one file.

What fails its proof is not written.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from pydantic import ValidationError

from model.average_precision import LabelledImages, measure
from model.built import Accuracy, ArtefactEngine, Built, Parity
from model.card import Card, read_card
from model.config import EngineName, ModelConfig, Suppression, describe_faults
from model.errors import ConfigError, WeightsError
from model.formats import Graph, make_graph
from model.formats.graph import SUFFIXES
from model.outputs import refuse_output
from model.parity import exact_engine, measure_parity, refuse_differences, refuse_loss

MAX_AP_LOSS: Final = 0.003
STRIDE: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """What to build, and what it may cost."""

    weights: Path
    output: Path
    engine: ArtefactEngine
    image_size: int = 640
    """Long side of the canvas at which AP is measured, where the graph takes any."""
    canvas_hw: tuple[int, int] | None = None
    """The one canvas of compiled code; a square of `image_size` if not given."""
    batch: int = 1
    """Images per request of compiled code."""
    nms: Suppression | None = None
    max_ap_loss: float = MAX_AP_LOSS
    overwrite: bool = False

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """What compiled code takes."""
        return (self.batch, *(self.canvas_hw or (self.image_size, self.image_size)), 3)

    def check(self) -> Card:
        """Refuse what cannot end well before anything is worked on; return the weights' card."""
        try:
            ModelConfig(image_size=self.image_size)
        except ValidationError as invalid:
            raise ConfigError(f"export: {describe_faults(invalid)}") from None
        _, height, width, _ = self.input_shape
        if self.batch < 1 or any(side < STRIDE or side % STRIDE for side in (height, width)):
            raise ConfigError(
                f"export: expected a batch of at least 1 and sides of whole multiples of {STRIDE}, "
                f"got {self.batch} of {height}x{width}"
            )
        if self.engine != "aoti" and (self.canvas_hw or self.batch != 1):
            raise ConfigError(f"export: {self.engine} runs at any canvas and batch; give neither")
        if self.engine != "onnx" and self.nms:
            raise ConfigError("export: --nms is for --format onnx only")
        if self.nms and self.nms.multi_label:
            raise ConfigError("export: suppression inside a graph gives an anchor one label only")
        if self.output.suffix != SUFFIXES[self.engine]:
            raise ConfigError(
                f"{self.output}: an artefact for {self.engine} is named *{SUFFIXES[self.engine]}; "
                "name it so, or choose another --format"
            )
        refuse_output(self.output, self.weights, overwrite=self.overwrite)
        card = read_card(self.weights)
        if card.form in ("quantised", "built"):
            raise WeightsError(f"{self.weights}: is an artefact already; give the weights")
        return card


def build_artefact(
    request: BuildRequest,
    labelled: LabelledImages | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Card:
    """Write an artefact of floats and return its card.

    Args:
        request: What to build.
        labelled: Images to measure average precision on, of both sides.
        report: Told what is being done.

    Raises:
        PrecisionLost: it is too far from eager torch, or finds less; nothing is written.
    """
    card = request.check()
    if labelled is not None and request.batch != 1:
        raise ConfigError(
            f"export: AP is measured one image at a time, got --data with --batch {request.batch}; "
            "give one of the two"
        )
    report(f"making a graph for {request.engine}")
    graph = make_graph(request.engine, request.weights, request.input_shape)
    with TemporaryDirectory() as folder:
        trial = Path(folder) / f"trial{SUFFIXES[request.engine]}"
        graph.save(trial, _with(card, graph.built))
        report("comparing it with eager torch")
        parity = measure_parity(request.weights, trial, graph.built)
        refuse_differences(request.output, parity)
        if labelled is not None:
            report("measuring average precision of both")
            accuracy = _measure_accuracy(request, trial, labelled)
            refuse_loss(request.output, accuracy, request.max_ap_loss)
            parity = parity.model_copy(update={"accuracy": accuracy})
    if request.nms is not None:
        graph, parity = _with_suppression(request, request.nms, card, graph, parity)
    proven = _with(card, graph.built.model_copy(update={"parity": parity}))
    graph.save(request.output, proven)
    return proven


def _with_suppression(
    request: BuildRequest, nms: Suppression, card: Card, graph: Graph, parity: Parity
) -> tuple[Graph, Parity]:
    """Put suppression behind a graph that was proven, and prove that too."""
    from model.formats.onnx import OnnxGraph
    from model.formats.suppression_check import check_suppression

    assert isinstance(graph, OnnxGraph)
    count = check_suppression(graph, nms, len(card.classes), request.output)
    inside = graph.with_suppression(nms, num_classes=len(card.classes))
    return inside, parity.model_copy(update={"detections": count})


def _measure_accuracy(request: BuildRequest, artefact: Path, labelled: LabelledImages) -> Accuracy:
    """Measure AP of both on one canvas; what suppression keeps is compared box by box instead."""
    _, height, width, _ = request.input_shape

    def ap(model: Path, engine: EngineName) -> float:
        with closing(exact_engine(model, engine, (height, width))) as built:
            return measure(built, labelled)["AP"]

    return Accuracy(
        data=labelled.name,
        images=len(labelled.paths),
        image_size=max(height, width),
        eager_ap=ap(request.weights, "torch"),
        artefact_ap=ap(artefact, request.engine),
    )


def _with(card: Card, built: Built) -> Card:
    return card.model_copy(update={"form": "built", "dtype": "float32", "built": built})
