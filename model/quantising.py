# SPDX-License-Identifier: Apache-2.0
"""From a float detector to an int8 graph of any canvas, calibrated on the user's own frames.

Convolutions get int8 weights and activations; which of them do not is a table, found by measuring
(docs/decisions/0010). What follows the convolutions, the decoding of boxes, stays float.
Axes: H and W height and width of a canvas.
"""

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Final

import numpy as np
import openvino
from jaxtyping import UInt8

from model.engines.openvino_graph import build_graph
from model.errors import MissingExtra

ANY_CANVAS: Final = (-1, -1, -1, 3)
MODULES: Final = ("__module.backbone.", "__module.neck.", "__module.head.")
"""What a layer's name starts with if it belongs to a module of the network."""
FLOAT_MODULES: Final[tuple[str, ...]] = ()
"""Modules that cost more precision than time when quantised."""


def require_quantiser() -> ModuleType:
    """Return NNCF, or say how to install it."""
    try:
        import nncf
    except ImportError:
        raise MissingExtra(
            "quantising needs nncf (extra: int8); install it with: pip install 'sightline[int8]'"
        ) from None
    return nncf


def quantise(
    weights: Path, canvases: Sequence[UInt8[np.ndarray, "H W 3"]], *, correct_bias: bool = True
) -> openvino.Model:
    """Quantise the detector in a weights file.

    Args:
        weights: A weights file of floats.
        canvases: What the network will see: letterboxed pictures, of any shapes.
        correct_bias: Whether to make up for what rounding shifts, which takes most of the time.
    """
    nncf = require_quantiser()
    nncf.set_log_level(logging.WARNING)  # it names every layer that it leaves alone
    graph = build_graph(weights, ANY_CANVAS)
    in_order = sorted(canvases, key=lambda canvas: canvas.shape)  # each shape is compiled once
    return nncf.quantize(
        graph,
        nncf.Dataset([canvas[None] for canvas in in_order]),
        preset=nncf.QuantizationPreset.PERFORMANCE,
        subset_size=len(in_order),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            disable_bias_correction=not correct_bias
        ),
        ignored_scope=nncf.IgnoredScope(names=_float_layers(graph), validate=False),
    )


def serialise(graph: openvino.Model) -> tuple[bytes, bytes]:
    """Return a graph as text and numbers."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.xml"
        openvino.save_model(graph, path, compress_to_fp16=False)
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()


def _float_layers(graph: openvino.Model) -> list[str]:
    """Name the layers that are not to be quantised."""
    names = (node.get_friendly_name() for node in graph.get_ops())
    return [
        name for name in names if not name.startswith(MODULES) or name.startswith(FLOAT_MODULES)
    ]
