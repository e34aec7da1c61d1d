# SPDX-License-Identifier: Apache-2.0
"""Many images as one picture: a batch with its boxes, or what was found beside what is there.

Axes: H and W of the sheet.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import cv2
import numpy as np
from jaxtyping import UInt8

from model.detections import Detections
from model.letterbox import Letterbox
from training.batches import TrainingBatch
from training.protocols import look
from training.records import Split

CAPTION_PX: Final = 18
PAIR_PX: Final = 320
"""Side of each of the two pictures of a comparison."""
GAP_PX: Final = 4
TEXT_SIZE: Final = 0.35
MOST_LABELS: Final = 12
"""Boxes of one image that have their names written; more would hide it."""
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


def comparison_sheet(
    split: Split, found: Mapping[int, Detections], min_score: float, columns: int = 2
) -> UInt8[np.ndarray, "H W 3"]:
    """Draw images twice, in RGB: on the left what is there, on the right what was found.

    Args:
        split: The images.
        found: What was found in those to show, by their place in the split.
        min_score: Boxes that score above this are drawn.
        columns: Pairs beside each other.
    """
    rows = -(-len(found) // columns)
    height, width = PAIR_PX + CAPTION_PX, 2 * PAIR_PX + GAP_PX
    sheet = np.full((rows * height, columns * (width + GAP_PX) - GAP_PX, 3), 255, np.uint8)
    for place, (index, boxes) in enumerate(found.items()):
        top, left = place // columns * height, place % columns * (width + GAP_PX)
        letterbox = Letterbox.fit(split[index].image_hw, (PAIR_PX, PAIR_PX))
        canvas = look(split.paths[index], letterbox)
        there, sure = split.objects(index), boxes[boxes.score > min_score]
        cells = (
            (canvas.copy(), there.class_id, there.xyxy, None),
            (canvas, sure.class_id, sure.xyxy, sure.score),
        )
        for side, (cell, class_id, xyxy, score) in enumerate(cells):
            objects = np.column_stack((class_id, class_id, letterbox.to_canvas(xyxy)))
            _draw_boxes(cell, objects, split.classes, score)
            start = left + side * (PAIR_PX + GAP_PX)
            sheet[top : top + PAIR_PX, start : start + PAIR_PX] = cell
        name = split.paths[index].rsplit("/", 1)[-1][:24]
        _write(sheet, f"{name}: {len(there)} labelled", (left + 2, top + height - 5))
        right = left + PAIR_PX + GAP_PX
        found_here = f"{len(sure)} found, score > {min_score}"
        _write(sheet, found_here, (right + 2, top + height - 5))
    return sheet


def colour_of(class_id: int) -> tuple[int, int, int]:
    """Return the colour of a class, far from those of its neighbours."""
    hue = np.uint8(class_id * 67 % 180)
    colour = cv2.cvtColor(np.array([[(hue, 255, 255)]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0]
    return int(colour[0]), int(colour[1]), int(colour[2])


def _draw_boxes(
    cell: np.ndarray,
    objects: np.ndarray,
    classes: Sequence[str],
    scores: Sequence[float] | np.ndarray | None = None,
) -> None:
    """Draw rows of anything, class, left, top, right, bottom; in a crowd, colours are the names."""
    for number, row in enumerate(objects):
        class_id = int(row[1])
        left, top, right, bottom = (round(float(side)) for side in row[2:])
        cv2.rectangle(cell, (left, top), (right - 1, bottom - 1), colour_of(class_id), 1)
        if len(objects) <= MOST_LABELS:
            score = "" if scores is None else f" {scores[number]:.2f}"
            _label(cell, f"{classes[class_id]}{score}", (left, top), colour_of(class_id))


def _label(
    cell: np.ndarray, text: str, corner: tuple[int, int], colour: tuple[int, int, int]
) -> None:
    """Write the name of a box above its corner, on its colour, where the cell has room for it."""
    (width, height), _ = cv2.getTextSize(text, _FONT, TEXT_SIZE, 1)
    left = min(max(corner[0], 0), max(cell.shape[1] - width - 2, 0))
    top = max(corner[1] - height - 3, 0)
    cv2.rectangle(cell, (left, top), (left + width + 1, top + height + 2), colour, cv2.FILLED)
    dark = np.dot(colour, (0.299, 0.587, 0.114)) < 110
    shade = (255, 255, 255) if dark else (0, 0, 0)
    _write(cell, text, (left + 1, top + height + 1), shade)


def _caption(batch: TrainingBatch, place: int, classes: Sequence[str]) -> str:
    known = [name for name, asked in zip(classes, batch.annotated[place], strict=True) if asked]
    looked_for = "all" if len(known) == len(classes) else ", ".join(known)
    return f"{batch.paths[place].rsplit('/', 1)[-1][:24]}: {looked_for}"


def _write(
    picture: np.ndarray, text: str, at: tuple[int, int], colour: tuple[int, int, int] = (0, 0, 0)
) -> None:
    cv2.putText(picture, text, at, _FONT, TEXT_SIZE, colour, 1, cv2.LINE_AA)
