# SPDX-License-Identifier: Apache-2.0
"""The network by TensorRT: its convolutions as one engine, decoding and ranking by eager torch.

TensorRT has no operation that reads the bits of a float as an integer, so keys cannot be made
inside; up to the head's maps the network is all convolutions, which it takes whole or not at all.
The engine is built on the machine that runs it and kept in our cache: torch-tensorrt's own keeps
engines without their weights, which run slower. It was never run; its tests hold it against the
interface that torch-tensorrt documents, 2.8 to 2.13.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from model.cuda.candidates import rank
from model.cuda.draft import Draft, Run, kept
from model.engines.tensorrt import require_tensorrt
from model.head import LevelLogits
from model.network import Detector


class HeadMaps(nn.Module):
    """A detector up to the maps of its head, box and score of each level in turn."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, canvases: Tensor) -> tuple[Tensor, ...]:
        return tuple(part for level in self.detector.logits(canvases) for part in level)


def build(draft: Draft) -> Run:
    """Build the engine, or take the one that was kept."""
    tensorrt = require_tensorrt()
    canvases = draft.examples[0]

    def make(path: Path) -> None:
        with torch.no_grad():
            program = torch.export.export(HeadMaps(draft.module.detector).eval(), (canvases,))
        compiled = tensorrt.dynamo.compile(
            program,
            inputs=[canvases],
            use_explicit_typing=True,
            require_full_compilation=True,
            use_python_runtime=False,
            disable_tf32=draft.plan.number_format == "f32",
        )
        tensorrt.save(compiled, str(path), inputs=[canvases])

    def load(path: Path) -> Run:
        maps = torch.export.load(path).module()

        def run(canvases: Tensor, min_score: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
            p3_box, p3, p4_box, p4, p5_box, p5 = maps(canvases)
            logits = (LevelLogits(p3_box, p3), LevelLogits(p4_box, p4), LevelLogits(p5_box, p5))
            return rank(logits, min_score, wanted)

        return run

    return kept(draft, "tensorrt", make, load)
