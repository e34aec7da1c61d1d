# SPDX-License-Identifier: Apache-2.0
"""Engines and artefacts of the larger sizes agree with eager torch; minutes, so run by hand."""

from pathlib import Path

import pytest

from model.building import BuildRequest, build_artefact
from model.built import ArtefactEngine
from model.config import EngineName
from model.formats.graph import SUFFIXES
from model.parity import difference, make_pictures, run_once
from model.reparam import fuse
from model.scales import SCALES, ScaleName
from model.weights import save_weights
from tests.model.builders import make_calm_detector, make_card
from tests.model.conftest import skip_without_compiler

pytestmark = [pytest.mark.compiled, pytest.mark.slow, pytest.mark.timeout(1800)]

LARGER = [scale for scale in SCALES if scale != "T"]


@pytest.fixture(scope="module", params=LARGER)
def weights(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    scale: ScaleName = request.param
    path = tmp_path_factory.mktemp("size") / f"{scale}.safetensors"
    card = make_card(scale=scale, class_width=SCALES[scale].class_width)
    save_weights(path, fuse(make_calm_detector(scale)), card)
    return path


@pytest.mark.parametrize("engine", ["openvino", "onnx", "aoti"])
def test_an_artefact_of_every_size_passes_its_proof(
    weights: Path, tmp_path: Path, engine: ArtefactEngine
) -> None:
    """On 2026-11-21, the largest differences in px and of score.

    S: openvino 0.00053 and 5e-6, onnx 0.0004 and 4e-6, aoti 0.00005 and 4e-7.
    M: openvino 0.0019 and 1.3e-5, onnx 0.0008 and 1.9e-5, aoti 0.0002 and 4e-6.
    C: openvino 0.0007 and 5e-6, onnx 0.0003 and 3e-6, aoti 0.0001 and 2e-6.
    E: openvino 0.0007 and 9e-6, onnx 0.0007 and 7e-6, aoti 0.00004 and 8e-7.
    """
    if engine == "aoti":
        skip_without_compiler()
    output = tmp_path / f"a{SUFFIXES[engine]}"
    canvas = {"canvas_hw": (64, 96)} if engine == "aoti" else {}
    card = build_artefact(BuildRequest(weights=weights, output=output, engine=engine, **canvas))
    assert card.built is not None
    assert card.built.parity is not None
    assert card.built.parity.box_px < 0.05


def test_compiled_torch_of_every_size_agrees(weights: Path) -> None:
    """On 2026-11-21: S, M and C at most 0.0001 px and 3e-6 of score; E not measured yet."""
    skip_without_compiler()
    pictures = make_pictures((1, 64, 96))
    name: EngineName = "inductor"
    box_px, score = difference(
        run_once(weights, name, pictures), run_once(weights, "torch", pictures)
    )
    assert box_px < 0.05
    assert score < 1e-3
