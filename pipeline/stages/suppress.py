# SPDX-License-Identifier: Apache-2.0
"""suppress: predictions to detections, back in the pixels of the source."""

from collections.abc import Sequence

from model.config import Suppression
from model.detections import Detections
from model.letterbox import Letterbox
from model.suppression import suppress
from pipeline.columns import detections_to_buffers
from pipeline.messages import Found, Predictions, timing
from pipeline.transport.ports import Ports


class Suppress:
    """Filters by score, suppresses overlaps, and undoes the letterbox."""

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
            rows = ports.pools.view(message.rows)[0]
            boxes = suppress(rows, self._config, classes=self._class_ids)
            delivery.release()
            letterbox = Letterbox.fit(message.source_hw, message.canvas_hw)
            detections = Detections(
                xyxy=letterbox.to_source(boxes.xyxy), score=boxes.score, class_id=boxes.class_id
            )
            ports.send(
                "found",
                Found(**timing(message)),
                detections_to_buffers(detections),
                on_acknowledged=delivery.acknowledge,
            )
