# SPDX-License-Identifier: Apache-2.0
"""`sightline` in a process of its own, with an engine that finds squares: `child.py serve ...`.

Faults are told after half a second here, so that tests need not wait for them.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))  # called by its path

import sightline
from pipeline.serve import service
from tests.pipeline.scenes import build_squares

if __name__ == "__main__":
    service.build_engine = build_squares
    service._LOST_AFTER_S = 0.5  # type: ignore[misc]
    sys.exit(sightline.main())
