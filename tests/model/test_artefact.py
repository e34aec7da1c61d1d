# SPDX-License-Identifier: Apache-2.0
"""Int8 artefacts: what they find at any shape, where they run, and what a wrong file is told."""

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import openvino
import pytest
from safetensors.numpy import load_file, save_file

from model import load
from model.artefact import graph_digest, read_graph, save_artefact
from model.card import CARD_KEY
from model.cli import models
from model.config import EngineName, ModelConfig, Precision
from model.engines import build_engine
from model.engines.openvino_graph import build_graph
from model.errors import EngineError, WeightsError
from model.quantising import ANY_CANVAS, serialise
from model.weights import load_detector, read_card
from tests.model.builders import make_card, make_image, make_quantised_card

pytestmark = pytest.mark.compiled

SHAPES = [(1, 64, 96), (2, 96, 64), (1, 160, 160)]


def infer(path: Path, images: np.ndarray, **options: object) -> np.ndarray:
    config = ModelConfig(weights=path, **options)
    batch, height, width, _ = images.shape
    engine = build_engine(config, image_hw=(height, width), batch=batch, num_requests=1)
    with closing(engine):
        return engine.infer(images)


def make_images(batch: int, height: int, width: int) -> np.ndarray:
    return np.stack([make_image(height, width, seed=seed) for seed in range(batch)])


@pytest.fixture(scope="module")
def unquantised(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The float graph of any canvas, written as an artefact: the same path without rounding."""
    text, numbers = serialise(build_graph(weights, ANY_CANVAS))
    path = tmp_path_factory.mktemp("float") / "float.safetensors"
    save_artefact(path, text, numbers, make_quantised_card(text, numbers))
    return path


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_one_graph_decodes_boxes_at_any_shape_and_batch(
    weights: Path, unquantised: Path, shape: tuple[int, int, int]
) -> None:
    """Random weights do not survive int8, so what is compared here is all but the rounding."""
    images = make_images(*shape)
    expected = infer(weights, images, engine="torch")
    exact = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY"}
    graph = read_graph(unquantised, (*shape, 3))
    actual = openvino.Core().compile_model(graph, "CPU", exact)(images)[0]
    assert expected[:, 4:].max() - expected[:, 4:].min() > 0.5
    assert np.abs(actual[:, :4] - expected[:, :4]).max() < 0.02
    assert np.abs(actual[:, 4:] - expected[:, 4:]).max() < 1e-4


def test_it_says_that_it_is_int8_and_is_cached(
    artefact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))
    images = make_images(1, 64, 96)
    config = ModelConfig(weights=artefact)
    results = []
    for _ in range(2):
        with closing(build_engine(config, image_hw=(64, 96), num_requests=1)) as engine:
            assert (engine.name, engine.precision) == ("openvino", "int8")
            assert engine.classes == read_card(artefact).classes
            results.append(engine.infer(images))
        monkeypatch.setattr("model.artefact.read_graph", None)  # the second start needs none
    np.testing.assert_array_equal(*results)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_it_runs_without_torch_and_without_the_quantiser(artefact: Path, tmp_path: Path) -> None:
    program = f"""
import os, sys
os.environ["SIGHTLINE_CACHE"] = {str(tmp_path)!r}
for absent in ("torch", "nncf", "faster_coco_eval"):
    sys.modules[absent] = None
import numpy as np
from model import load
detector = load({str(artefact)!r}, image_size=96)
print(len(detector(np.zeros((64, 96, 3), np.uint8), min_score=0)))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > 0


@pytest.mark.parametrize("precision", ["f32", "bf16", "accuracy"])
def test_another_precision_is_refused_in_one_line(artefact: Path, precision: Precision) -> None:
    with pytest.raises(EngineError, match=f"int8 artefact, got {precision}") as caught:
        load(artefact, precision=precision)
    assert len(str(caught.value).splitlines()) == 1


def test_eager_torch_is_refused_in_one_line(artefact: Path) -> None:
    engine: EngineName = "torch"
    with pytest.raises(EngineError, match="only openvino runs, got torch") as caught:
        build_engine(ModelConfig(weights=artefact, engine=engine), image_hw=(64, 96))
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(WeightsError, match="holds no weights that torch could run"):
        load_detector(artefact)


def test_models_says_how_it_was_made(artefact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models(artefact)
    printed = capsys.readouterr().out
    assert "quantised" in printed
    assert "4 frames at 96 px" in printed


def rewrite(
    path: Path, change: Callable[[bytes, bytes], tuple[bytes, bytes]], *, honest: bool = True
) -> None:
    """Change text and numbers; an honest card says so, as a hostile author would see to."""
    card = read_card(path)
    tensors = load_file(path)
    text, numbers = change(tensors["openvino.xml"].tobytes(), tensors["openvino.bin"].tobytes())
    if honest:
        assert card.quantisation is not None
        digest = graph_digest(text, numbers)
        quantisation = card.quantisation.model_copy(update={"graph_sha256": digest})
        card = card.model_copy(update={"quantisation": quantisation})
    save_artefact(path, text, numbers, card)


@pytest.fixture
def copy(artefact: Path, tmp_path: Path) -> Path:
    path = tmp_path / "copy.safetensors"
    path.write_bytes(artefact.read_bytes())
    return path


def fault(path: Path) -> str:
    """What running a file fails with: one line that names it."""
    with pytest.raises(WeightsError) as caught:
        read_graph(path, (1, 64, 96, 3))
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("place", [0.3, 0.6, 0.999])
def test_a_changed_byte_is_noticed(copy: Path, place: float) -> None:
    content = bytearray(copy.read_bytes())
    content[int(place * len(content))] ^= 1
    copy.write_bytes(content)
    assert "damaged" in fault(copy)


def test_a_file_cut_short_is_named(copy: Path) -> None:
    copy.write_bytes(copy.read_bytes()[:-100])
    assert "cut short" in fault(copy)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(lambda _, n: (b"", n), "not plain XML", id="no text"),
        pytest.param(lambda t, n: (t[:-9], n), "not plain XML", id="half a text"),
        pytest.param(lambda t, n: (b"<!DOCTYPE x>" + t, n), "not plain XML", id="entities"),
        pytest.param(lambda t, n: (b"\xff" + t, n), "not plain XML", id="no letters"),
        pytest.param(lambda _, n: (b"<net/>", n), "OpenVINO cannot read", id="no layers"),
        pytest.param(lambda t, n: (t, n[:-8]), "numbers that it does not hold", id="few numbers"),
        pytest.param(
            lambda t, n: (t.replace(b'offset="0"', b'offset="-8"'), n),
            "numbers that it does not hold",
            id="numbers before the start",
        ),
        pytest.param(
            lambda t, n: (t.replace(b'type="Swish"', b'type="ReadValue"'), n),
            "layers of kind 'ReadValue'",
            id="another layer",
        ),
        pytest.param(
            lambda t, n: (t.replace(b"<dim>96</dim>", b"<dim>9999999999</dim>"), n),
            "absurd size",
            id="absurd size",
        ),
        pytest.param(
            lambda t, n: (t.replace(b'shape="?,?,?,3"', b'shape="?,?,?,4"', 1), n),
            "its graph",
            id="four channels",
        ),
    ],
)
def test_a_hostile_graph_is_refused_in_one_line(
    copy: Path, change: Callable[[bytes, bytes], tuple[bytes, bytes]], expected: str
) -> None:
    rewrite(copy, change)
    assert expected in fault(copy)


def test_a_graph_of_other_classes_is_refused(
    quantised: tuple[bytes, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "other.safetensors"
    save_artefact(path, *quantised, make_quantised_card(*quantised, classes=("one", "two")))
    assert "ports" in fault(path)


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        pytest.param({"a": np.zeros(3, np.uint8)}, "1 other tensors", id="other tensors"),
        pytest.param(
            {"openvino.bin": np.zeros(3, np.float32), "openvino.xml": np.zeros(3, np.uint8)},
            "openvino.bin is F32",
            id="numbers of another kind",
        ),
        pytest.param(
            {"openvino.bin": np.zeros(3, np.uint8), "openvino.xml": np.zeros((3, 3), np.uint8)},
            "openvino.xml is U8 of",
            id="text in two axes",
        ),
    ],
)
def test_other_tensors_are_refused(
    tmp_path: Path, tensors: dict[str, np.ndarray], expected: str
) -> None:
    path = tmp_path / "a.safetensors"
    save_file(tensors, path, {CARD_KEY: make_quantised_card(b"", b"").model_dump_json()})
    assert expected in fault(path)


def test_a_declared_size_beyond_the_limit_is_not_read(
    monkeypatch: pytest.MonkeyPatch, copy: Path
) -> None:
    monkeypatch.setitem(sys.modules["model.artefact"].MAX_BYTES, "openvino.xml", 1000)
    assert "openvino.xml is U8 of" in fault(copy)


@pytest.mark.parametrize("form", ["fused", "quantised"])
def test_form_and_quantisation_belong_together(tmp_path: Path, form: str) -> None:
    card = json.loads(
        (make_quantised_card(b"", b"") if form == "fused" else make_card()).model_dump_json()
    )
    text = json.dumps({"__metadata__": {CARD_KEY: json.dumps(card | {"form": form})}}).encode()
    path = tmp_path / "card.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(WeightsError, match="says how it was quantised"):
        read_card(path)
