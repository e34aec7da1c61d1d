# SPDX-License-Identifier: Apache-2.0
"""suppress: predictions to detections, back in the pixels of the source."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from model.config import Suppression
from model.detections import Detections
from model.engines.found import read_found
from model.merging import join_looks, suppress_looks
from pipeline.columns import detections_to_buffers
from pipeline.messages import Found, Predictions, timing
from pipeline.models import in_model
from pipeline.transport.ports import Ports


class Suppress:
    """Filters by score, suppresses overlaps, undoes the letterbox, and joins looks.

    Of an engine that gives boxes the first two are done.
    """

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
            detections = self._detections(message, ports.pools.view(message.rows))
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

    def _detections(self, message: Predictions, rows: np.ndarray) -> Detections:
        """What was found, in pixels of what the detector was shown."""
        regions, canvas_hw = message.regions, message.canvas_hw
        if message.suppressed:
            return join_looks(read_found(rows), regions, canvas_hw, self._config)
        classes = in_model(self._class_ids, message.class_map)
        return suppress_looks(rows, regions, canvas_hw, self._config, classes=classes)
