# SPDX-License-Identifier: Apache-2.0
"""The detector with all that is compiled together with it: decoding, score filter, ranking.

Convolutions are in the number format of the network, all behind them in float32. Axes: B batch,
C classes, H and W height and width of the canvas, A anchor points.
"""

from typing import Final

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor, nn

from model.head import Logits, decode_corners, in_float32
from model.network import Detector

NONE: Final = 2**63 - 1
"""The key of an anchor that is no candidate; it sorts behind every other."""
_HIGHEST: Final = 0x7FFFFFFF

Ranked = tuple[Float32[Tensor, "B A 4"], Int64[Tensor, "B A"]]
"""Boxes in canvas pixels, and keys as `rank` makes them."""


class Candidates(nn.Module):
    """A detector that says which anchors are candidates, and in which order they are looked at."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(
        self,
        canvases: Float[Tensor, "B 3 H W"],
        min_score: Float32[Tensor, ""],
        wanted: Bool[Tensor, " C"],
    ) -> Ranked:
        return rank(self.detector.logits(canvases), min_score, wanted)


def rank(logits: Logits, min_score: Float32[Tensor, ""], wanted: Bool[Tensor, " C"]) -> Ranked:
    """Return every anchor's box, and a key by which candidates sort as `suppress` takes them.

    A candidate is an anchor with a finite box whose best class is wanted and scores above
    `min_score`. The high half of its key is the score turned over, whose bits grow with it since
    it is positive; the low half is its place, anchor times classes plus class. Keys differ, so any
    sort gives the one order. Each level finds its best classes by itself, so that the scores
    of all levels are never put together.
    """
    exact = in_float32(logits)
    boxes = torch.cat(decode_corners(exact), dim=1).transpose(1, 2).contiguous()
    # of equal scores the first class is taken, as numpy's argmax does
    bests = [level.score.flatten(2).sigmoid().max(dim=1) for level in exact]
    score = torch.cat([best.values for best in bests], dim=1)
    label = torch.cat([best.indices for best in bests], dim=1)
    fits = (score > min_score) & wanted[label] & boxes.isfinite().all(dim=2)
    anchor = torch.arange(score.shape[1], device=score.device)
    turned = _HIGHEST - score.view(torch.int32).to(torch.int64)
    keys = (turned << 32) | (anchor * wanted.shape[0] + label)
    return boxes, torch.where(fits, keys, NONE)
