# SPDX-License-Identifier: Apache-2.0
"""suppress: predictions to detections, back in the pixels of the source."""

from collections.abc import Sequence

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
                classes=self._class_ids,
            )
            delivery.release()
            ports.send(
                "found",
                Found(**timing(message), part=message.part),
                detections_to_buffers(detections),
                on_acknowledged=delivery.acknowledge,
            )
