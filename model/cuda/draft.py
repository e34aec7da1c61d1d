# SPDX-License-Identifier: Apache-2.0
"""A network that is to be compiled: its module, inputs like those it will get, its cache entry.

What is kept holds the weights too, so that a network of each batch size has its own in the memory
of the device.
"""

import logging
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch
from torch import Tensor

from model.card import read_card
from model.cuda.candidates import Candidates
from model.cuda.plan import NetworkKind, NetworkPlan, NumberFormat
from model.engines.cache import artefact_path, making, read_artefact, write_artefact
from model.engines.direct import first_line
from model.engines.machine import installed_version
from model.processor import cpu_features, cpu_model
from model.weights import load_detector, weights_digest

logger = logging.getLogger(__name__)

NETWORK_VERSION: Final = 1
"""Raised whenever what is compiled changes, so that older cache entries are not used."""
DTYPES: Final[dict[NumberFormat, torch.dtype]] = {
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "f32": torch.float32,
}
_COMPILERS: Final = ("torch", "triton", "torch_tensorrt", "tensorrt")

Inputs = tuple[Tensor, Tensor, Tensor]
"""Canvases, least score, wanted classes, as `plan.Network` takes them."""
Run = Callable[[Tensor, Tensor, Tensor], "tuple[Tensor, Tensor] | list[Tensor]"]


class Draft:
    """One network before it is compiled; weights are read only if they are needed."""

    def __init__(self, plan: NetworkPlan) -> None:
        self.plan = plan
        self.device = torch.device("cuda", plan.device) if plan.device >= 0 else torch.device("cpu")
        self.dtype = DTYPES[plan.number_format]
        self.num_classes = len(read_card(plan.weights).classes)
        if plan.number_format == "f32":
            # else torch has convolutions read numbers of 10 bits, TF32
            torch.backends.cudnn.allow_tf32 = False

    @cached_property
    def module(self) -> Candidates:
        """The detector where it is to run, in its number format."""
        detector, _ = load_detector(self.plan.weights)
        # torch's own annotations lack this overload
        moved = detector.to(self.device, self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return Candidates(moved).eval()

    @cached_property
    def examples(self) -> Inputs:
        """Inputs of the shapes and layouts that it is compiled for."""
        pixels = (self.plan.batch, *self.plan.canvas_hw, 3)
        canvases = torch.full(pixels, 0.5, dtype=self.dtype, device=self.device)
        wanted = torch.ones(self.num_classes, dtype=torch.bool, device=self.device)
        return canvases.permute(0, 3, 1, 2), torch.tensor(0.25, device=self.device), wanted

    def key(self, kind: NetworkKind) -> dict[str, Any]:
        """Return all that the compiled network depends on."""
        return {
            "network": NETWORK_VERSION,
            "kind": kind,
            "weights": weights_digest(self.plan.weights),
            "canvas": self.plan.canvas_hw,
            "batch": self.plan.batch,
            "numbers": self.plan.number_format,
            "made_with": {name: installed_version(name) for name in _COMPILERS},
            "device": describe_device(self.device),
        }

    def tried(self, run: Run) -> Run:
        """Run it once: what cannot run is known now, and no real run has a first time."""
        with torch.no_grad():
            run(*self.examples)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return run


def kept(
    draft: Draft, kind: NetworkKind, make: Callable[[Path], None], load: Callable[[Path], Run]
) -> Run:
    """Return the network that was compiled before, or compile it and keep it.

    Args:
        draft: What is compiled.
        kind: How.
        make: Writes the compiled network to a file.
        load: Reads such a file, which it does not need afterwards.

    Raises:
        torch.OutOfMemoryError: it does not fit into the device's memory.
    """
    entry = artefact_path(draft.key(kind))
    with TemporaryDirectory() as folder, making(entry):
        path = Path(folder) / "network.pt2"
        content = read_artefact(entry)
        if content is not None:
            path.write_bytes(content)
            try:
                return _loaded(draft, load, path)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as failure:
                logger.info("%s: not used (%s); it is built again", entry, first_line(failure))
        make(path)
        content = path.read_bytes()
        run = _loaded(draft, load, path)
        write_artefact(entry, content)
        return run


def _loaded(draft: Draft, load: Callable[[Path], Run], path: Path) -> Run:
    """Load a compiled network and try it; compiled code does not say that memory was lacking."""
    before = num_refused(draft.device)
    try:
        return draft.tried(load(path))
    except RuntimeError as failure:
        if num_refused(draft.device) > before or "out of memory" in str(failure).lower():
            raise torch.OutOfMemoryError(first_line(failure)) from failure
        raise


def num_refused(device: torch.device) -> int:
    """Return how often torch could not give the memory that it was asked for."""
    if device.type != "cuda":
        return 0
    refused: int = torch.cuda.memory_stats(device).get("num_ooms", 0)
    return refused


def describe_device(device: torch.device) -> list[str]:
    """Return what code that was compiled for a device depends on."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return [torch.cuda.get_device_name(device), f"{major}.{minor}"]
    return [cpu_model(), *sorted(cpu_features())]
