# SPDX-License-Identifier: Apache-2.0
"""From a plan to a network that can be captured; what was compiled is kept on disk.

A package of AOTInductor is the usual one: it is built once a machine, shape and weights, which
takes minutes, runs without Python, and computes the same bits at every start. Building one for a
GPU needs the headers of the CUDA toolkit besides a C++ compiler; `auto` takes torch.compile where
they are missing, and eager torch where nothing compiles. All this was run on a processor only:
no network was ever compiled for a GPU, captured there, or given to TensorRT.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from subprocess import SubprocessError
from typing import Final

import torch
from torch import Tensor

from model.cuda.draft import DTYPES, Draft, Run, kept
from model.cuda.plan import Network, NetworkKind, NetworkPlan
from model.engines.compiler import prepare_compiler
from model.engines.direct import count_anchors, first_line
from model.engines.packages import compile_package, load_package
from model.engines.tensorrt import require_tensorrt
from model.errors import EngineError

logger = logging.getLogger(__name__)

ORDER: Final[dict[NetworkKind, tuple[NetworkKind, ...]]] = {
    "auto": ("aoti", "inductor", "eager"),
    "eager": ("eager",),
    "inductor": ("inductor",),
    "aoti": ("aoti",),
    "tensorrt": ("tensorrt", "aoti", "inductor", "eager"),
}
"""What is tried, until one compiles and runs."""
REFUSALS: Final = (EngineError, RuntimeError, AssertionError, OSError, SubprocessError)
"""What compilers raise where they cannot do it; AssertionError is TensorRT's way to say so."""
MOST_SHAPES: Final = 64
"""That torch.compile makes of one function; its own limit is 8, and each batch size takes one."""
_COMPILING: Final = threading.Lock()
"""torch compiles one network at a time in a process, where engines are built for several GPUs."""
_WHAT: Final = "model.engine: cuda: the network"


def compile_network(plan: NetworkPlan) -> Network:
    """Build the detector for one batch size on one canvas, and run it once.

    Raises:
        EngineError: what the plan asks for cannot be had here. Of TensorRT, that is only so where
            it is not installed: what it refuses to compile is compiled otherwise, and `how` of
            the network says so.
        torch.OutOfMemoryError: the device has too little memory.
    """
    if plan.how == "tensorrt":
        require_tensorrt()
    draft = Draft(plan)
    refused: list[str] = []
    for kind in ORDER[plan.how]:
        try:
            with _COMPILING, _current(draft.device):
                run = MAKERS[kind](draft)
        except torch.OutOfMemoryError:
            raise
        except REFUSALS as failure:
            refused.append(f"{kind} refused: {first_line(failure)}")
            logger.warning("%s: %s", _WHAT, refused[-1])
        else:
            return CompiledNetwork(plan, run, _told(kind, refused))
    raise EngineError(f"{plan.weights}: cannot be compiled for this machine: {'; '.join(refused)}")


class CompiledNetwork:
    """A compiled detector that takes only what it was compiled for."""

    def __init__(self, plan: NetworkPlan, run: Run, how: str) -> None:
        self.how = how
        self.num_anchors = count_anchors(*plan.canvas_hw)
        self._shape = (plan.batch, 3, *plan.canvas_hw)
        self._dtype = DTYPES[plan.number_format]
        self._run = run

    def __call__(
        self, canvases: Tensor, min_score: Tensor, wanted: Tensor
    ) -> tuple[Tensor, Tensor]:
        self._check(canvases)
        with torch.no_grad():
            boxes, keys = self._run(canvases, min_score, wanted)
        return boxes, keys

    def _check(self, canvases: Tensor) -> None:
        """Refuse canvases that compiled code, which does not look, would take for others."""
        channels_last = canvases.is_contiguous(memory_format=torch.channels_last)
        if canvases.shape != self._shape or canvases.dtype != self._dtype or not channels_last:
            raise ValueError(
                f"canvases must be {self._dtype} of shape {self._shape}, channels last, got "
                f"{canvases.dtype} of shape {tuple(canvases.shape)}, strides {canvases.stride()}"
            )


def _eager(draft: Draft) -> Run:
    return draft.tried(draft.module)


def _inductor(draft: Draft) -> Run:
    prepare_compiler(_WHAT)
    compiled = torch.compile(
        draft.module, fullgraph=True, dynamic=False, options={"freezing": True}
    )
    with torch._dynamo.config.patch(recompile_limit=MOST_SHAPES):  # noqa: SLF001 - its public place
        return draft.tried(compiled)


def _aoti(draft: Draft) -> Run:
    def make(path: Path) -> None:
        prepare_compiler(_WHAT)
        compile_package(draft.module, draft.examples, path)

    def load(path: Path) -> Run:
        package = load_package(path, device=draft.plan.device, single_threaded=True)
        return lambda *inputs: package.run(list(inputs))

    return kept(draft, "aoti", make, load)


def _tensorrt(draft: Draft) -> Run:
    from model.cuda.tensorrt import build

    return build(draft)


MAKERS: Final[dict[NetworkKind, Callable[[Draft], Run]]] = {
    "eager": _eager,
    "inductor": _inductor,
    "aoti": _aoti,
    "tensorrt": _tensorrt,
}


def _told(kind: NetworkKind, refused: list[str]) -> str:
    return f"{kind} ({'; '.join(refused)})" if refused else kind


def _current(device: torch.device) -> AbstractContextManager[object]:
    """Make a GPU the one that torch and its compilers take where none is named."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
