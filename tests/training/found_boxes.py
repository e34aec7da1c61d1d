# SPDX-License-Identifier: Apache-2.0
"""What was found, as tests write it down, and how their images are looked at."""

import numpy as np

from model.detections import Detections
from training.class_map import ClassMap
from training.evaluation import Views
from training.loading import Loading

SAME = ClassMap(of_model=(0, 1, 2), of_data=(0, 1, 2))
SQUARES = Views(protocol="square", image_size=64, batch_size=2, loading=Loading(workers=0))


def boxes(*rows: tuple[float, int, int, int, int, int]) -> Detections:
    """Rows of score, class, left, top, right, bottom."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    table = table[np.argsort(-table[:, 0], kind="stable")]
    return Detections(xyxy=table[:, 2:], score=table[:, 0], class_id=table[:, 1].astype(np.int64))
