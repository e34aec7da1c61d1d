# SPDX-License-Identifier: Apache-2.0
"""What the ranked candidates of an image say, read back from their keys."""

import numpy as np
import torch
from torch import Tensor

from model.cuda.candidates import NONE
from model.detections import Detections


def read_ranked(boxes: Tensor, keys: Tensor, num_classes: int) -> Detections:
    """The candidates of one image, in the order of their keys."""
    ranked = keys[keys != NONE].sort().values.cpu()
    anchor, label = np.divmod((ranked & 0xFFFFFFFF).numpy(), num_classes)
    bits = (0x7FFFFFFF - (ranked >> 32)).to(torch.int32)
    return Detections(
        xyxy=boxes.cpu()[anchor].numpy(),
        score=bits.view(torch.float32).numpy(),
        class_id=label,
    )
