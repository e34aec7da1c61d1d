# SPDX-License-Identifier: Apache-2.0
"""The two kernels as functions of arrays, on whichever machine runs them."""

from collections.abc import Sequence

import numpy as np

from model.config import Suppression
from model.cuda.looks import EMPTY, LOOK, describe
from model.cuda.plan import NumberFormat
from model.cuda.source import (
    FOUND_HEAD,
    FOUND_ROW,
    OUT,
    letterbox_launch,
    suppress_launch,
)
from model.detections import Detections
from tests.model.cuda.coded_pictures import Shot
from tests.model.cuda.host_kernels import Machine

TICKET_STRIDE = LOOK.itemsize // 4
_FIRST_TICKET = LOOK.fields["ticket"][1] // 4  # type: ignore[index]


class Kernels:
    """Launches kernels on a machine and brings back what they wrote."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def letterbox(
        self,
        shots: Sequence[Shot | None],
        canvas_hw: tuple[int, int],
        *,
        number_format: NumberFormat = "f32",
        channels_last: bool = False,
    ) -> np.ndarray:
        """Canvases as N 3 H W, float32 from 0 to 1; None is an entry that is not used.

        What the kernel does not write is not a number.
        """
        put = self._machine.put
        entries = [
            describe(shot.coded, put(shot.pixels), shot.region, canvas_hw, ticket)
            if shot
            else EMPTY
            for ticket, shot in enumerate(shots)
        ]
        height, width = canvas_hw
        numbers = np.uint32 if number_format == "f32" else np.uint16
        canvases = np.full(len(shots) * 3 * height * width, np.iinfo(numbers).max, numbers)
        to = self._machine.put_for_writing(canvases)
        row, pixel, channel = (3 * width, 3, 1) if channels_last else (width, 1, height * width)
        looks = put(np.array(entries, LOOK))
        args = (looks, to, width, height, 3 * height * width, channel, row, pixel)
        launch = letterbox_launch(len(shots), canvas_hw)
        self._machine.launch(
            "letterbox_batch", launch.grid, launch.block, args, OUT=OUT[number_format]
        )
        made = as_float32(self._machine.get(to), number_format)
        if channels_last:
            return made.reshape(len(shots), height, width, 3).transpose(0, 3, 1, 2)
        return made.reshape(len(shots), 3, height, width)

    def suppress(
        self,
        keys: np.ndarray,
        boxes: np.ndarray,
        settings: Suppression,
        num_classes: int,
        *,
        most_boxes: int = 300,
        first_ticket: int = 0,
    ) -> np.ndarray:
        """What was found, as the kernel writes it: ints, a row an image.

        Args:
            keys: int64, images x keys, ascending.
            boxes: float32, images x anchors x 4.
            settings: Limits.
            num_classes: By which keys name a candidate's place.
            most_boxes: That the kernel is compiled for.
            first_ticket: Of the first image; the others count on.
        """
        count, num_keys = keys.shape
        looks = np.zeros(count, LOOK)
        looks["ticket"] = np.arange(count) + first_ticket
        stride = FOUND_HEAD + FOUND_ROW * settings.max_boxes
        found = self._machine.put_for_writing(np.full((count, stride), -1, np.int32))
        args = (
            self._machine.put(keys),
            self._machine.put(boxes),
            self._machine.put(looks) + 4 * _FIRST_TICKET,
            TICKET_STRIDE,
            num_keys,
            boxes.shape[1],
            num_classes,
            settings.max_boxes,
            settings.max_iou,
            int(settings.class_aware),
            found,
        )
        launch = suppress_launch(count)
        self._machine.launch(
            "suppress_ranked", launch.grid, launch.block, args, MAX_BOXES=most_boxes
        )
        return self._machine.get(found)


def as_float32(numbers: np.ndarray, number_format: NumberFormat) -> np.ndarray:
    """The values of numbers that were kept as bits."""
    match number_format:
        case "f32":
            return numbers.view(np.float32)
        case "f16":
            return numbers.view(np.float16).astype(np.float32)
        case "bf16":
            return (numbers.astype(np.uint32) << 16).view(np.float32)


def detections_of(found: np.ndarray) -> Detections:
    """The boxes of one image."""
    rows = found[FOUND_HEAD:].reshape(-1, FOUND_ROW)[: found[0]]
    return Detections(
        xyxy=np.ascontiguousarray(rows[:, :4]).view(np.float32),
        score=np.ascontiguousarray(rows[:, 4]).view(np.float32),
        class_id=rows[:, 5].astype(np.int64),
    )
