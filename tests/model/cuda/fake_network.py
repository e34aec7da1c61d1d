# SPDX-License-Identifier: Apache-2.0
"""A small network for the tests of the engine, and pictures that it finds something in."""

import numpy as np
import torch
from torch import Tensor

from model.cuda.coded import Coded, CodedPicture
from model.cuda.plan import NetworkPlan
from model.slicing import Region

CELL = 16
CLASSES = 3


class FakeNetwork:
    """Each cell of a canvas is an anchor; its colour is its scores, and how large its box is."""

    how = "fake"

    def __init__(self, plan: NetworkPlan) -> None:
        height, width = plan.canvas_hw
        self.num_anchors = height // CELL * (width // CELL)

    def __call__(
        self, canvases: Tensor, min_score: Tensor, wanted: Tensor
    ) -> tuple[Tensor, Tensor]:
        rows = predict(canvases)
        boxes, scores = rows[:, :4].transpose(1, 2).contiguous(), rows[:, 4:]
        best, label = scores.max(dim=1)
        fits = (best > min_score) & wanted[label]
        anchor = torch.arange(self.num_anchors)
        turned = 0x7FFFFFFF - best.view(torch.int32).to(torch.int64)
        keys = (turned << 32) | (anchor * CLASSES + label)
        return boxes, torch.where(fits, keys, 2**63 - 1)

    @staticmethod
    def on_canvases(canvases: np.ndarray) -> np.ndarray:
        """What it says of canvases as they are: B rows A."""
        return predict(torch.from_numpy(canvases).permute(0, 3, 1, 2) / 255).numpy()


def predict(canvases: Tensor) -> Tensor:
    """Left, top, right, bottom, then the scores, of all cells: B 7 A."""
    colours = torch.nn.functional.avg_pool2d(canvases.float().contiguous(), CELL)
    _, _, rows, columns = colours.shape
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    centre = torch.stack((x, y)).flatten(1) * CELL + CELL / 2
    scores = colours.flatten(2)
    half = CELL * (0.5 + scores[:, :2])
    return torch.cat((centre - half, centre + half, scores), dim=1)


def make_canvases(shape: tuple[int, int, int, int], *, seed: int) -> np.ndarray:
    """Canvases with a colour for each cell."""
    count, height, width, channels = shape
    random = np.random.default_rng(seed)
    cells = random.integers(0, 256, (count, height // CELL, width // CELL, channels), np.uint8)
    return cells.repeat(CELL, axis=1).repeat(CELL, axis=2)


def make_picture(
    *, seed: int, picture_hw: tuple[int, int] = (48, 128), fixed: bool = False
) -> CodedPicture:
    """An NV12 picture with a colour for each cell."""
    height, width = picture_hw
    random = np.random.default_rng(seed)
    luma = random.integers(16, 236, (height // CELL, width // CELL), np.uint8)
    chroma = random.integers(16, 241, (height // CELL, width // CELL, 2), np.uint8)
    half = CELL // 2
    planes = (
        luma.repeat(CELL, axis=0).repeat(CELL, axis=1),
        chroma.repeat(half, axis=0).repeat(half, axis=1),
    )
    pixels = np.concatenate([plane.ravel() for plane in planes])
    coded = Coded(
        pixel_format="nv12",
        coded_hw=picture_hw,
        offsets=(0, height * width),
        pitches=(width, width),
        matrix="bt709",
        full_range=False,
        upright_hw=picture_hw,
        num_bytes=pixels.nbytes,
    )
    regions = (Region.whole(picture_hw),)
    return CodedPicture(pixels=pixels, coded=coded, regions=regions, fixed=fixed)
