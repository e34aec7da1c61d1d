# SPDX-License-Identifier: Apache-2.0
"""suppress: predictions to detections, back in the pixels of the source."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from model.config import Suppression
from model.merging import suppress_looks
from pipeline.columns import detections_to_buffers
from pipeline.messages import Found, Predictions, timing
from pipeline.transport.ports import Ports


class Suppress:
    """Filters by score, suppresses overlaps, undoes the letterbox, and joins looks."""

    def __init__(self, config: Suppression, class_ids: Sequence[int] | None) -> None:
        self._config = config
        self._class_ids = class_ids

    def run(self, ports: Ports) -> tuple[str, ...]:
        """Serve until the supervisor ends the run."""
        while True:
            delivery = ports.receive("predictions")
            assert delivery is not None
            message = delivery.message
            if not isinstance(message, Predictions):
                delivery.release()
                ports.send("found", message, on_acknowledged=delivery.acknowledge)
                continue
            detections = suppress_looks(
                ports.pools.view(message.rows),
                message.regions,
                message.canvas_hw,
                self._config,
                classes=_in_model(self._class_ids, message.class_map),
            )
            if message.class_map is not None:
                ours = np.array(message.class_map, np.int64)[detections.class_id]
                detections = replace(detections, class_id=ours)
            delivery.release()
            ports.send(
                "found",
                Found(**timing(message), part=message.part, model=message.model),
                detections_to_buffers(detections),
                on_acknowledged=delivery.acknowledge,
            )


def _in_model(
    class_ids: Sequence[int] | None, class_map: Sequence[int] | None
) -> Sequence[int] | None:
    """The classes to look for, as the model numbers them."""
    if class_map is None:
        return class_ids
    known = enumerate(class_map)
    return [n for n, ours in known if ours >= 0 and (class_ids is None or ours in class_ids)]
