# SPDX-License-Identifier: Apache-2.0
"""The detector: `load(weights)` gives a callable that takes pictures and returns `Detections`."""

from model.detections import Detections
from model.loading import LoadedDetector, load

__all__ = ["Detections", "LoadedDetector", "load"]
