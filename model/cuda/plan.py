# SPDX-License-Identifier: Apache-2.0
"""What the compiled network is asked to be, and what it promises."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from model.config import Suppression

if TYPE_CHECKING:
    from torch import Tensor

NetworkKind = Literal["auto", "eager", "inductor", "aoti", "tensorrt"]
NumberFormat = Literal["f16", "bf16", "f32"]


class Network(Protocol):
    """The compiled detector for one batch size on one canvas; may be captured."""

    how: str
    """`eager`, `inductor`, `aoti` or `tensorrt`; with what was refused, if something was."""
    num_anchors: int

    def __call__(
        self, canvases: "Tensor", min_score: "Tensor", wanted: "Tensor"
    ) -> "tuple[Tensor, Tensor]":
        """Run on the current stream.

        Args:
            canvases: B 3 H W, channels last, RGB from 0 to 1, of the plan's number format.
            min_score: float32 scalar; only scores above it are candidates.
            wanted: bool C; which classes are.

        Returns:
            Boxes, B A 4 float32, contiguous, in canvas pixels; keys, B A int64, which sort in the
            order that suppression takes candidates, `model.cuda.candidates.NONE` for none.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPlan:
    """One network to compile."""

    weights: Path
    canvas_hw: tuple[int, int]
    batch: int
    number_format: NumberFormat
    how: NetworkKind
    device: int
    """Index of the GPU; -1 is the processor, as tests have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuWanted:
    """What an engine that ends with boxes is asked for, beside its weights and its shape."""

    device: int
    batch_sizes: tuple[int, ...]
    """That are captured, rising."""
    in_flight: int
    """Batches at once."""
    window_ms: float
    """For which a batch is collected while another runs."""
    file_batch: int
    """The one size for frames of files."""
    arena_mib: int
    """Device memory for the coded pictures of one batch."""
    suppression: Suppression
    class_ids: tuple[int, ...] | None
    """As its weights number them; None for all."""
    how: NetworkKind = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePlan:
    """One engine to build."""

    weights: Path
    canvas_hw: tuple[int, int]
    looks: int
    """Of a frame at most."""
    number_format: NumberFormat
    gpu: GpuWanted
