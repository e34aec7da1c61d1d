# SPDX-License-Identifier: Apache-2.0
"""What a program pays for importing the model: a fresh interpreter each."""

import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "cupy",
    "openvino",
    "zmq",
    "av",
    "cv2",
    "msgspec",
    "supervision",
    "pipeline",
    "training",
)


@pytest.mark.parametrize(
    "module",
    [
        "model",
        "model.cli",
        "model.config",
        "model.cuda.device",
        "model.cuda.looks",
        "model.cuda.source",
        "model.engines",
        "model.engines.contract",
        "model.letterbox",
        "model.suppression",
        "model.weights",
    ],
)
def test_importing_pulls_in_no_engine_and_no_video(module: str) -> None:
    program = f"import sys, {module}; print(*sorted(set(sys.modules) & set({HEAVY!r})))"
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "\n"
