# SPDX-License-Identifier: Apache-2.0
"""What int8 makes of the values: near to the floats of a network that rounding does not throw off.

How near is measured by what the network itself makes of another picture: an int8 graph that has
lost sight of its picture is as far from the floats as that, and its scores follow theirs no more.
"""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from model.artefact import save_artefact
from model.config import ModelConfig
from model.engines import build_engine
from model.parity import make_pictures, run_once
from tests.model.builders import make_quantised_card

pytestmark = pytest.mark.compiled


def test_int8_stays_near_the_floats(weights: Path, tmp_path: Path) -> None:
    """On 2026-11-21: scores correlate by 0.78 or more and lie 0.41 as far as another picture's."""
    pytest.importorskip("nncf")
    from model.quantising import quantise, serialise

    calibration = list(make_pictures((8, 64, 96), seed=3))
    graph = serialise(quantise(weights, calibration, correct_bias=False))
    artefact = tmp_path / "int8.safetensors"
    save_artefact(artefact, *graph, make_quantised_card(*graph))
    pictures, others = make_pictures((2, 64, 96), seed=1), make_pictures((2, 64, 96), seed=2)
    expected = run_once(weights, "torch", pictures)
    elsewhere = run_once(weights, "torch", others)
    config = ModelConfig(weights=artefact)
    with closing(build_engine(config, image_hw=(64, 96), batch=2, num_requests=1)) as engine:
        actual = engine.infer(pictures)
    for row in range(4, 7):
        assert np.corrcoef(actual[:, row].ravel(), expected[:, row].ravel())[0, 1] > 0.6
    for rows in (slice(0, 4), slice(4, 7)):
        apart = np.median(np.abs(actual[:, rows] - expected[:, rows]))
        assert apart < 0.7 * np.median(np.abs(elsewhere[:, rows] - expected[:, rows]))
