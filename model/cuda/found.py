# SPDX-License-Identifier: Apache-2.0
"""From what the suppression kernel writes to what a request gets.

The kernel writes words of 32 bits for each look: a head with the count and the ticket, then rows of
left, top, right, bottom, score and class. A request's result is float32: a row with the count and
zeros, then the boxes, best first, then zeros. Pixels are those of the canvas.
"""

import numpy as np
from jaxtyping import Float32, Int32

from model.cuda.source import FOUND_HEAD, FOUND_ROW
from model.errors import EngineError


def words_of(max_boxes: int) -> int:
    """Return how many words the kernel writes for a look."""
    return FOUND_HEAD + FOUND_ROW * max_boxes


def parse_found(
    found: Int32[np.ndarray, "looks words"],
    tickets: Int32[np.ndarray, " looks"],
    predictions: Float32[np.ndarray, "looks rows 6"],
) -> None:
    """Write what was found in the looks of a request into its result.

    Raises:
        EngineError: this is the result of other looks.
    """
    if not np.array_equal(found[:, 1], tickets):
        raise EngineError(
            f"cuda: a batch ended with results of other looks: tickets {found[:, 1].tolist()}, "
            f"expected {tickets.tolist()}; the device or this program is at fault"
        )
    rows = found[:, FOUND_HEAD:].reshape(len(found), -1, FOUND_ROW)
    predictions[:, 0] = 0
    predictions[:, 0, 0] = found[:, 0]
    predictions[:, 1:, :5] = rows[:, :, :5].view(np.float32)
    predictions[:, 1:, 5] = rows[:, :, 5]
