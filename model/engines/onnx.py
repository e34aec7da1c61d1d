# SPDX-License-Identifier: Apache-2.0
"""Our ONNX artefacts by ONNX Runtime, on the processor. Axes as in `contract`. Needs no torch."""

from pathlib import Path
from types import ModuleType

import numpy as np
from jaxtyping import Float32, UInt8

from model.card import read_card
from model.engines.direct import DirectEngine, InputShape, first_line
from model.errors import EngineError, WeightsError
from model.onnx_file import graph_digest

INPUT, OUTPUT = "images", "predictions"


def require_runtime() -> ModuleType:
    """Return ONNX Runtime, or say how to install it."""
    try:
        import onnxruntime
    except ImportError:
        raise EngineError(
            "model.engine: onnx needs onnxruntime (extra: onnx); install it with: "
            "pip install -e '.[onnx]'"
        ) from None
    return onnxruntime


def failures_of(runtime: ModuleType) -> tuple[type[Exception], ...]:
    """Return its errors, which have no root of their own."""
    found = vars(runtime.capi.onnxruntime_pybind11_state).values()
    return tuple(kind for kind in found if isinstance(kind, type) and issubclass(kind, Exception))


class OnnxEngine(DirectEngine):
    """A graph of any canvas, run at one."""

    def __init__(self, artefact: Path, input_shape: InputShape, num_threads: int | None) -> None:
        runtime = require_runtime()
        self.failures = failures_of(runtime)
        card = read_card(artefact)
        assert card.built is not None
        if graph_digest(artefact) != card.built.graph_sha256:
            raise WeightsError(f"{artefact}: the artefact is damaged; export it again")
        super().__init__("onnx", card.classes, input_shape)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = num_threads or 0
        options.log_severity_level = 3
        try:
            # as bytes, so that the graph cannot name other files
            self._session = runtime.InferenceSession(
                artefact.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
        except self.failures as failure:
            raise EngineError(
                f"{artefact}: ONNX Runtime cannot run this: {first_line(failure)}"
            ) from failure
        self._check_ports(artefact)

    def _run(self, images: UInt8[np.ndarray, "B H W 3"]) -> Float32[np.ndarray, "B rows A"]:
        return self._session.run([OUTPUT], {INPUT: images})[0]

    def _check_ports(self, artefact: Path) -> None:
        ports = (*self._session.get_inputs(), *self._session.get_outputs())
        found = [(port.name, port.type) for port in ports]
        if found != [(INPUT, "tensor(uint8)"), (OUTPUT, "tensor(float)")]:
            raise WeightsError(f"{artefact}: not an artefact of sightline export: ports {found}")
