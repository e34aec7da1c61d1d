# SPDX-License-Identifier: Apache-2.0
"""What the tests of the model may ask for."""

from pathlib import Path

import pytest
import torch

from model.building import BuildRequest, build_artefact
from model.built import ArtefactEngine
from model.config import Suppression
from model.engines.compiler import missing_compiler
from model.formats.graph import SUFFIXES
from model.weights import read_card
from tests.model.builders import (
    make_image,
    make_quantised_card,
    make_weights,
)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of size T, three classes, that rounding does not throw off."""
    return make_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def openvino_artefact(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`weights` as a float graph for OpenVINO."""
    return export_for("openvino", weights, tmp_path_factory.mktemp("openvino"))


@pytest.fixture(scope="session")
def onnx_artefact(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`weights` as ONNX."""
    pytest.importorskip("onnxruntime")
    return export_for("onnx", weights, tmp_path_factory.mktemp("onnx"))


@pytest.fixture(scope="session")
def onnx_nms_artefact(
    onnx_artefact: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The same with suppression inside, not exported a second time."""
    import onnx

    from model.formats.onnx import OnnxGraph

    plain = onnx.load(onnx_artefact)
    del plain.metadata_props[:]
    built = read_card(onnx_artefact).built
    assert built is not None
    made = OnnxGraph(built=built, model=plain.SerializeToString())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.building.make_graph", lambda *_: made)
        folder = tmp_path_factory.mktemp("onnx-nms")
        return export_for("onnx", weights, folder, nms=Suppression())


@pytest.fixture(scope="session")
def aoti_artefact(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`weights` compiled for two pictures of 64 x 96."""
    skip_without_compiler()
    folder = tmp_path_factory.mktemp("aoti")
    return export_for("aoti", weights, folder, canvas_hw=(64, 96), batch=2)


@pytest.fixture(scope="session")
def quantised(weights: Path) -> tuple[bytes, bytes]:
    """The graph of `weights` in int8, text and numbers: made once, because it takes long."""
    from model.quantising import quantise, serialise

    canvases = [make_image(64, 96, seed=seed) for seed in range(4)]
    return serialise(quantise(weights, canvases, correct_bias=False))


@pytest.fixture(scope="session")
def artefact(quantised: tuple[bytes, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`weights` as an int8 artefact."""
    from model.artefact import save_artefact

    path = tmp_path_factory.mktemp("artefact") / "int8.safetensors"
    save_artefact(path, *quantised, make_quantised_card(*quantised))
    return path


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small pictures run faster on one core than on several that wait for each other."""
    torch.set_num_threads(1)


def export_for(engine: ArtefactEngine, weights: Path, folder: Path, **options: object) -> Path:
    output = folder / f"exported{SUFFIXES[engine]}"
    build_artefact(BuildRequest(weights=weights, output=output, engine=engine, **options))
    return output


def skip_without_compiler() -> None:
    missing = missing_compiler()
    if missing is not None:
        pytest.skip(f"torch cannot compile here: {missing}")
