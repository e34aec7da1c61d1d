# SPDX-License-Identifier: Apache-2.0
"""A batch as one picture, with its boxes and what it was annotated for. H and W of the sheet."""

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from jaxtyping import UInt8

from training.batches import TrainingBatch

CAPTION_PX: Final = 18
_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX


def contact_sheet(
    batch: TrainingBatch, classes: Sequence[str], columns: int = 4
) -> UInt8[np.ndarray, "H W 3"]:
    """Draw every sample of a batch beside the others, in RGB."""
    count, _, height, width = batch.images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    sheet = np.full((rows * (height + CAPTION_PX), columns * width, 3), 255, np.uint8)
    for place in range(count):
        top, left = place // columns * (height + CAPTION_PX), place % columns * width
        cell = np.ascontiguousarray(batch.images[place].permute(1, 2, 0).numpy())
        objects = batch.objects[batch.objects[:, 0] == place].numpy()
        _draw_boxes(cell, objects, classes)
        sheet[top : top + height, left : left + width] = cell
        _write(sheet, _caption(batch, place, classes), (left + 2, top + height + CAPTION_PX - 5))
    return sheet


def colour_of(class_id: int) -> tuple[int, int, int]:
    """Return the colour of a class, far from those of its neighbours."""
    hue = np.uint8(class_id * 67 % 180)
    colour = cv2.cvtColor(np.array([[(hue, 255, 255)]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0]
    return int(colour[0]), int(colour[1]), int(colour[2])


def _draw_boxes(cell: np.ndarray, objects: np.ndarray, classes: Sequence[str]) -> None:
    for row in objects:
        class_id = int(row[1])
        left, top, right, bottom = (round(float(side)) for side in row[2:])
        cv2.rectangle(cell, (left, top), (right - 1, bottom - 1), colour_of(class_id), 1)
        _write(cell, classes[class_id], (left + 1, max(top - 2, 9)), colour_of(class_id))


def _caption(batch: TrainingBatch, place: int, classes: Sequence[str]) -> str:
    known = [name for name, asked in zip(classes, batch.annotated[place], strict=True) if asked]
    looked_for = "all" if len(known) == len(classes) else ", ".join(known)
    return f"{batch.paths[place].rsplit('/', 1)[-1][:24]}: {looked_for}"


def _write(
    picture: np.ndarray, text: str, at: tuple[int, int], colour: tuple[int, int, int] = (0, 0, 0)
) -> None:
    cv2.putText(picture, text, at, _FONT, 0.35, colour, 1, cv2.LINE_AA)
