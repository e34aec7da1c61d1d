# SPDX-License-Identifier: Apache-2.0
"""The detector: `load(weights)` gives a callable that takes pictures and returns `Detections`."""

import sys

# What watches cameras reports to nobody: OpenVINO and NNCF send statistics of their use when they
# are imported, unless this module of theirs cannot be.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

from model.detections import Detections  # noqa: E402
from model.loading import LoadedDetector, load  # noqa: E402

__all__ = ["Detections", "LoadedDetector", "load"]
