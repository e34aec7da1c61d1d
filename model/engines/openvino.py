# SPDX-License-Identifier: Apache-2.0
"""The engine for processors: OpenVINO, compiled once per shape and kept on disk.

Torch is imported only to convert weights; an artefact, and a model found in the cache, start
without it. Each request has its own thread that waits for it, so that a failure reaches `on_done`:
OpenVINO's callback is not called for one. Axes as in `contract`.
"""

import logging
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import numpy as np
import openvino
from jaxtyping import Float32, UInt8

from model.card import Card, read_card
from model.config import Precision
from model.engines.cache import artefact_path, read_artefact, write_artefact
from model.engines.contract import (
    Done,
    Gives,
    Takes,
    check_request,
    infer_by_request,
    writeable_view,
)
from model.engines.openvino_core import get_core
from model.errors import EngineError
from model.weights import weights_digest

logger = logging.getLogger(__name__)

GRAPH_VERSION: Final = 1
"""Raised whenever the graph built here changes, so that older cache entries are not used."""
DEVICE: Final = "CPU"

Job = tuple[np.ndarray, np.ndarray, Done]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How one model is compiled."""

    precision: Precision
    """Never `auto`."""
    input_shape: tuple[int, int, int, int]
    num_requests: int
    num_threads: int

    @classmethod
    def make(
        cls,
        precision: Precision,
        input_shape: tuple[int, int, int, int],
        num_requests: int | None,
        num_threads: int | None,
    ) -> "Plan":
        """Fill in what is left to this machine: its cores and its precision."""
        threads = num_threads or len(os.sched_getaffinity(0))
        return cls(
            precision=choose_precision(precision),
            input_shape=input_shape,
            num_requests=num_requests or threads,
            num_threads=threads,
        )

    def properties(self) -> dict[str, Any]:
        """Return what OpenVINO is told."""
        return {
            "NUM_STREAMS": min(self.num_requests, self.num_threads),
            "INFERENCE_NUM_THREADS": self.num_threads,
            "INFERENCE_PRECISION_HINT": "bf16" if self.precision == "bf16" else "f32",
            "EXECUTION_MODE_HINT": "ACCURACY" if self.precision == "accuracy" else "PERFORMANCE",
        }


def choose_precision(precision: Precision) -> Precision:
    """Return what `auto` stands for on this processor, and refuse what it cannot do."""
    capable = "BF16" in get_core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and not capable:
        raise EngineError(
            "model.precision: this processor does not compute in bf16; choose auto, f32 or accuracy"
        )
    if precision == "auto":
        return "bf16" if capable else "f32"
    return precision


class OpenVinoEngine:
    """A compiled model with one thread for each request in flight."""

    takes: Takes = "canvases"
    gives: Gives = "predictions"
    has_room = True

    def __init__(self, weights: Path, plan: Plan) -> None:
        self.name = "openvino"
        card = read_card(weights)
        self.classes = card.classes
        self.num_requests = plan.num_requests
        try:
            model = _compiled(weights, card, plan)
            hint = model.get_property("INFERENCE_PRECISION_HINT")
            requests = [model.create_infer_request() for _ in range(plan.num_requests)]
        except RuntimeError as failure:
            reason = _first_line(failure)
            raise EngineError(f"{weights}: OpenVINO cannot run this: {reason}") from failure
        self.precision = card.quantisation.precision if card.quantisation else hint.get_type_name()
        self.input_shape = plan.input_shape
        batch, rows, anchors = model.output(0).shape
        self.output_shape = (batch, rows, anchors)
        self._closed = False
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._serve, args=(request,), daemon=True, name="openvino")
            for request in requests
        ]
        for thread in self._threads:
            thread.start()

    def infer(self, images: UInt8[np.ndarray, "B H W 3"]) -> Float32[np.ndarray, "B rows A"]:
        return infer_by_request(self, images)

    def start(
        self,
        images: UInt8[np.ndarray, "B H W 3"],
        predictions: Float32[np.ndarray, "B rows A"],
        on_done: Done,
    ) -> None:
        check_request(self, images, predictions)
        if self._closed:
            raise EngineError("this engine is closed")
        self._jobs.put((images, predictions, on_done))

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self, request: openvino.InferRequest) -> None:
        """Run one request after another until `close`."""
        while (job := self._jobs.get()) is not None:
            images, predictions, on_done = job
            try:
                request.set_input_tensor(
                    openvino.Tensor(writeable_view(images), shared_memory=True)
                )
                request.set_output_tensor(openvino.Tensor(predictions, shared_memory=True))
                request.start_async()
                request.wait()
            except RuntimeError as failure:
                on_done(EngineError(f"OpenVINO failed: {_first_line(failure)}"))
            else:
                on_done(None)


def _compiled(weights: Path, card: Card, plan: Plan) -> openvino.CompiledModel:
    """Take the compiled model from the cache, or build it and keep it."""
    core = get_core()
    path = artefact_path(
        {
            "plan": asdict(plan),
            "weights": _digest(weights, card),
            "graph": GRAPH_VERSION,
            "openvino": openvino.__version__,
            "processor": core.get_property(DEVICE, "FULL_DEVICE_NAME"),
            "capabilities": sorted(core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")),
        }
    )
    artefact = read_artefact(path)
    if artefact is not None:
        try:
            return core.import_model(artefact, DEVICE, plan.properties())
        except RuntimeError as failure:
            logger.info("%s: OpenVINO refuses it (%s); it is built again", path, failure)
    model = core.compile_model(_graph(weights, card, plan), DEVICE, plan.properties())
    write_artefact(path, model.export_model().getvalue())
    return model


def _digest(weights: Path, card: Card) -> str:
    """Tell files apart by what is compiled from them."""
    if card.form in ("quantised", "built"):
        from model.artefact import content_digest

        return content_digest(weights)
    return weights_digest(weights)


def _graph(weights: Path, card: Card, plan: Plan) -> openvino.Model:
    """Read an artefact's graph, or convert the detector, for which torch is needed."""
    if card.form in ("quantised", "built"):
        from model.artefact import read_graph

        return read_graph(weights, plan.input_shape)
    from model.engines.openvino_graph import build_graph

    return build_graph(weights, plan.input_shape)


def _first_line(failure: RuntimeError) -> str:
    """Return what OpenVINO says, without the places in its source."""
    lines = [line for line in str(failure).splitlines() if line and "Exception from" not in line]
    return lines[-1].strip() if lines else type(failure).__name__
