# SPDX-License-Identifier: Apache-2.0
"""Artefacts of floats: what outsiders find in them, where they run, and what is not written."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model import load
from model.average_precision import LabelledImages
from model.building import BuildRequest, build_artefact
from model.built import Accuracy, Built, Needs, Parity
from model.card import Card, read_card
from model.cli import models
from model.config import EngineName, ModelConfig, Suppression
from model.engines import build_engine
from model.engines.build import check_runs
from model.engines.machine import release
from model.errors import ConfigError, EngineError, MissingExtra, PrecisionLost, WeightsError
from model.onnx_file import read_notes
from model.package import add_card
from model.parity import (
    difference,
    make_pictures,
    refuse_differences,
    refuse_loss,
    run_once,
)
from model.reparam import fuse
from model.suppression import suppress
from model.weights import load_detector
from tests.model.builders import CLASSES, make_calm_detector, make_card

pytestmark = pytest.mark.compiled


def test_fusing_changes_no_more_than_rounding() -> None:
    """On 2026-11-21: 2e-4 px and 4e-6 of score."""
    import torch

    detector = make_calm_detector()
    images = torch.from_numpy(make_pictures((2, 64, 96))).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        box_px, score = difference(fuse(detector)(images).numpy(), detector(images).numpy())
    assert box_px < 0.005
    assert score < 1e-4


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 160, 96), (1, 320, 192)], ids=str)
@pytest.mark.parametrize("fixture", ["openvino_artefact", "onnx_artefact"])
def test_one_graph_runs_at_any_batch_and_canvas(
    fixture: str,
    shape: tuple[int, int, int],
    weights: Path,
    request: pytest.FixtureRequest,
) -> None:
    pictures = make_pictures(shape, seed=7)
    name: EngineName = "onnx" if fixture == "onnx_artefact" else "openvino"
    actual = run_once(request.getfixturevalue(fixture), name, pictures)
    box_px, score = difference(actual, run_once(weights, "torch", pictures))
    assert box_px < 0.02
    assert score < 1e-4


def test_an_onnx_file_tells_an_outsider_what_it_takes(onnx_artefact: Path) -> None:
    import onnx

    model = onnx.load(onnx_artefact)
    (images,), (predictions,) = model.graph.input, model.graph.output

    def axes(value: onnx.ValueInfoProto) -> list[str | int]:
        sides = value.type.tensor_type.shape.dim
        return [side.dim_param or side.dim_value for side in sides]

    assert axes(images) == ["batch", "height", "width", 3]
    assert axes(predictions) == ["batch", 4 + len(CLASSES), "anchors"]
    notes = {entry.key: entry.value for entry in model.metadata_props}
    assert tuple(json.loads(notes["classes"])) == CLASSES
    takes = json.loads(notes["preprocessing"])
    assert (takes["colour"], takes["pad_value"], takes["stride"]) == ("RGB", 114, 32)
    assert takes["filter"] == "triangle, antialiased"
    assert str(Path(__file__).parents[2]) not in model.SerializeToString().decode(errors="ignore")


def test_suppression_inside_is_ours(onnx_nms_artefact: Path, weights: Path) -> None:
    """As an outsider runs it, at the limits it was exported with."""
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx_nms_artefact)
    pictures = make_pictures((3, 160, 128), seed=4)
    names = [output.name for output in session.get_outputs()]
    assert names == ["boxes", "scores", "class_ids", "num_dets"]
    found = session.run(None, {"images": pictures})
    expected = run_once(weights, "torch", pictures)
    total = 0
    for rows, boxes, scores, class_ids, count in zip(expected, *found, strict=True):
        ours = suppress(rows, Suppression())
        assert count == len(ours)
        np.testing.assert_array_equal(class_ids[:count], ours.class_id)
        np.testing.assert_allclose(boxes[:count], ours.xyxy, atol=0.02)
        np.testing.assert_allclose(scores[:count], ours.score, atol=1e-4)
        assert (class_ids[count:] == -1).all()
        assert not boxes[count:].any()
        assert not scores[count:].any()
        total += count
    assert total > 10
    built = read_card(onnx_nms_artefact).built
    assert built is not None
    assert built.parity is not None
    assert built.parity.detections is not None
    assert built.parity.detections > 10


def test_the_guides_example_finds_what_sightline_finds(
    onnx_nms_artefact: Path, weights: Path, tmp_path: Path
) -> None:
    guide = (Path(__file__).parents[2] / "docs/guides/export.md").read_text()
    example = guide.split("```python\n")[1].split("```")[0]
    shutil.copy(onnx_nms_artefact, tmp_path / "t.onnx")
    picture = make_pictures((1, 300, 500), seed=8)[0]
    Image.fromarray(picture).save(tmp_path / "picture.jpg", quality=95)
    ran = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    seen = np.asarray(Image.open(tmp_path / "picture.jpg").convert("RGB"))
    found = load(weights, engine="torch")(seen, square=True)
    lines = ran.stdout.splitlines()
    assert len(lines) == len(found) > 0
    assert [line.split()[0] for line in lines] == [CLASSES[label] for label in found.class_id]


@pytest.mark.parametrize("blank", [0, 255])
def test_suppression_of_a_picture_with_nothing_in_it_runs(
    onnx_nms_artefact: Path, weights: Path, blank: int
) -> None:
    import onnxruntime

    pictures = np.full((1, 64, 64, 3), blank, np.uint8)
    count = onnxruntime.InferenceSession(onnx_nms_artefact).run(["num_dets"], {"images": pictures})
    expected = suppress(run_once(weights, "torch", pictures)[0], Suppression())
    assert count[0].tolist() == [len(expected)]


def test_equal_boxes_are_kept_in_the_order_of_their_anchors() -> None:
    """A graph of suppression alone, on rows with ties, more boxes than fit, and classes mixed."""
    onnxruntime = pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper

    from model.formats.suppression import add_suppression

    random = np.random.default_rng(0)
    corner = random.integers(0, 40, (2, 2, 700)) * 8
    rows = np.concatenate((corner, corner + 24, random.integers(0, 9, (2, 3, 700)) / 8), axis=1)
    rows = rows.astype(np.float32)
    for class_aware in (True, False):
        settings = Suppression(min_score=0.2, max_iou=0.4, max_boxes=50, class_aware=class_aware)
        value = helper.make_tensor_value_info(
            "predictions", TensorProto.FLOAT, ["batch", 7, "anchors"]
        )
        graph = helper.make_graph([], "alone", [value], [value])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        add_suppression(model, settings, num_classes=3)
        session = onnxruntime.InferenceSession(model.SerializeToString())
        for row, boxes, scores, class_ids, count in zip(
            rows, *session.run(None, {"predictions": rows}), strict=True
        ):
            ours = suppress(row, settings)
            assert count == len(ours) == 50
            np.testing.assert_array_equal(boxes, ours.xyxy)
            np.testing.assert_array_equal(scores, ours.score)
            np.testing.assert_array_equal(class_ids, ours.class_id)


def run_program(program: str, **environment: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize("fixture", ["openvino_artefact", "onnx_artefact"])
def test_it_runs_without_torch(
    fixture: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    artefact = request.getfixturevalue(fixture)
    program = f"""
import sys
for absent in ("torch", "nncf", "onnx", "onnxscript", "faster_coco_eval"):
    sys.modules[absent] = None
import numpy as np
from model import load
detector = load({str(artefact)!r}, image_size=96)
print(len(detector(np.zeros((64, 96, 3), np.uint8), min_score=0)))
"""
    assert int(run_program(program, SIGHTLINE_CACHE=str(tmp_path))) > 0


def test_compiled_code_runs_without_a_compiler(aoti_artefact: Path, tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
import sys
from model.parity import make_pictures, run_once
from model.engines.compiler import missing_compiler
print(missing_compiler() is not None)
print(run_once(Path({str(aoti_artefact)!r}), "aoti", make_pictures((2, 64, 96))).shape)
print("torch._inductor" in sys.modules)
"""
    printed = run_program(program, PATH="", CXX="", TMPDIR=str(tmp_path))
    assert printed == "True\n(2, 7, 126)\nFalse\n"


def test_compiled_code_is_run_only_when_it_is_named(aoti_artefact: Path) -> None:
    with pytest.raises(EngineError, match="runs with your rights; choose aoti"):
        load(aoti_artefact)


def test_compiled_code_of_another_shape_is_refused(aoti_artefact: Path) -> None:
    config = ModelConfig(weights=aoti_artefact, engine="aoti")
    with pytest.raises(EngineError, match="compiled for 2 of 64x96, got 1 of 96x64"):
        build_engine(config, image_hw=(96, 64))


def make_built(**changes: object) -> Card:
    built = Built(
        engine="aoti",
        graph_sha256="",
        input_shape=(1, 64, 96, 3),
        made_with={},
        needs=Needs(machine="x86_64", features=("avx512f",), torch="2.13"),
    )
    return make_card(form="built", built=built.model_copy(update=changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {"needs": Needs(machine="riscv64", features=(), torch="2.13")},
            "compiled for riscv64, and this machine is x86_64",
            id="architecture",
        ),
        pytest.param({}, "a processor with avx512f, which this one lacks", id="instructions"),
        pytest.param(
            {"needs": Needs(machine="x86_64", features=("avx2",), torch="1.9")},
            "compiled with torch 1.9, and here is 2.13; install torch==1.9",
            id="torch",
        ),
        pytest.param(
            {"engine": "openvino", "needs": None, "made_with": {"openvino": "2999.1.0"}},
            "made with OpenVINO 2999.1.0, and here is",
            id="OpenVINO",
        ),
    ],
)
def test_a_machine_that_cannot_run_it_is_told_why(
    changes: dict[str, object], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("model.engines.machine.cpu_features", lambda: frozenset({"avx2"}))
    versions = {"torch": "2.13.0+cpu", "openvino": "2026.4.1"}
    monkeypatch.setattr("model.engines.machine.installed_version", versions.get)
    card = make_built(**changes)
    engine = changes.get("engine", "aoti")
    with pytest.raises(EngineError, match=expected) as caught:
        check_runs(ModelConfig(weights=Path("a.pt2"), engine=engine), card)
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch, onnx_artefact: Path) -> None:
    monkeypatch.setattr("model.engines.machine.installed_version", lambda _: None)
    card = make_built(needs=Needs(machine=os.uname().machine, features=(), torch="2.13"))
    with pytest.raises(EngineError, match=r"needs torch 2\.13; install it"):
        check_runs(ModelConfig(weights=Path("a.pt2"), engine="aoti"), card)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineError, match=r"needs onnxruntime .*pip install -e '\.\[onnx\]'"):
        build_engine(ModelConfig(weights=onnx_artefact), image_hw=(64, 96))


def test_versions_are_compared_by_their_release() -> None:
    assert release("2.13.0+cpu") == release("2.13.1") != release("2.12.0")


def test_suppression_inside_is_for_others(onnx_nms_artefact: Path) -> None:
    with pytest.raises(EngineError, match="export one without --nms to run it here"):
        load(onnx_nms_artefact)


@pytest.mark.parametrize("engine", ["onnx", "aoti"])
def test_weights_are_no_artefact(weights: Path, engine: EngineName) -> None:
    with pytest.raises(EngineError, match=f"make one with: sightline export .* --format {engine}"):
        load(weights, engine=engine)


def test_an_artefact_is_run_by_its_own_engine(onnx_artefact: Path) -> None:
    with pytest.raises(EngineError, match="onnx artefact, which only onnx runs, got openvino"):
        load(onnx_artefact, engine="openvino")
    with pytest.raises(EngineError, match="onnx computes in f32 only, got bf16"):
        load(onnx_artefact, precision="bf16")
    with pytest.raises(WeightsError, match="holds no weights that torch could run"):
        load_detector(onnx_artefact)


@pytest.mark.parametrize("fixture", ["openvino_artefact", "onnx_artefact", "aoti_artefact"])
def test_models_says_what_it_is_and_how_near(
    fixture: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    models(request.getfixturevalue(fixture))
    printed = " ".join(part.strip(" │\n") for part in capsys.readouterr().out.split("│"))
    assert "built" in printed
    assert "eager torch" in printed
    assert "pad_value 114" in " ".join(printed.split())


@pytest.mark.parametrize("place", [0.3, 0.6])
@pytest.mark.parametrize("fixture", ["openvino_artefact", "onnx_artefact", "aoti_artefact"])
def test_a_changed_byte_is_noticed(
    fixture: str, place: float, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    whole: Path = request.getfixturevalue(fixture)
    content = bytearray(whole.read_bytes())
    content[int(place * len(content))] ^= 1
    copy = tmp_path / whole.name
    copy.write_bytes(content)
    engine: EngineName = "aoti" if fixture == "aoti_artefact" else "auto"
    config = ModelConfig(weights=copy, engine=engine)
    with pytest.raises(WeightsError, match="damaged; export it again"):
        build_engine(config, image_hw=(64, 96), batch=2)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.onnx", b"", "it has no card"),
        ("a.onnx", b"\x08\x0a\x3a\x7f", "cut short"),
        ("a.onnx", b"\xff" * 40, "not an ONNX file"),
        ("a.pt2", b"", "not a package of compiled code"),
        ("a.pt2", b"PK\x03\x04", "not a package of compiled code"),
    ],
)
def test_what_is_no_artefact_is_named(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=expected):
        read_card(path)
    with pytest.raises(WeightsError, match="No such file"):
        read_card(tmp_path / "none" / name)


def test_a_package_without_a_card_is_named(tmp_path: Path) -> None:
    import zipfile

    path = tmp_path / "a.pt2"
    with zipfile.ZipFile(path, "w") as package:
        package.writestr("a/version", "1")
    with pytest.raises(WeightsError, match="it has no card"):
        read_card(path)
    add_card(path, make_built().model_dump_json())
    assert read_card(path) == make_built()


def test_notes_are_read_without_the_graph(onnx_artefact: Path) -> None:
    notes = read_notes(onnx_artefact)
    assert set(notes) == {"sightline", "classes", "preprocessing", "licence"}
    assert notes["licence"] == b"Apache-2.0"


def test_what_is_too_far_from_eager_torch_is_not_written(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.parity.MAX_BOX_PX", 1e-12)
    output = tmp_path / "a.safetensors"
    with pytest.raises(PrecisionLost, match="not written: it lies up to"):
        build_artefact(BuildRequest(weights=weights, output=output, engine="openvino"))
    assert not list(tmp_path.iterdir())


def test_each_limit_counts() -> None:
    for box_px, score in ((0.051, 0), (0, 0.0011), (np.inf, 0)):
        with pytest.raises(PrecisionLost, match="from eager torch"):
            refuse_differences(Path("a"), Parity(seed=0, shapes=(), box_px=box_px, score=score))
    refuse_differences(Path("a"), Parity(seed=0, shapes=(), box_px=0.049, score=0.0009))
    lost = Accuracy(data="a", images=1, image_size=64, eager_ap=0.44, artefact_ap=0.43)
    with pytest.raises(PrecisionLost, match=r"from 0\.4400 to 0\.4300, by 0\.0100, more than"):
        refuse_loss(Path("a"), lost, 0.003)
    refuse_loss(Path("a"), lost, 0.02)


def test_numbers_that_are_none_are_infinitely_far() -> None:
    nothing = np.full((1, 7, 3), np.nan, np.float32)
    assert difference(nothing, np.zeros_like(nothing)) == (np.inf, np.inf)


@pytest.mark.parametrize(
    ("changes", "kind", "expected"),
    [
        ({"output": "a.pt"}, ConfigError, r"is named \*\.safetensors"),
        ({"engine": "onnx", "output": "a.safetensors"}, ConfigError, r"is named \*\.onnx"),
        ({"output": "no/a.safetensors"}, WeightsError, "folder does not exist"),
        ({"canvas_hw": (64, 64)}, ConfigError, "any canvas and batch"),
        ({"nms": Suppression()}, ConfigError, "--format onnx only"),
        (
            {"engine": "onnx", "output": "a.onnx", "nms": Suppression(multi_label=True)},
            ConfigError,
            "one label only",
        ),
        ({"engine": "aoti", "output": "a.pt2", "canvas_hw": (64, 65)}, ConfigError, "64x65"),
        ({"engine": "aoti", "output": "a.pt2", "batch": 0}, ConfigError, "got 0 of"),
        ({"image_size": 100}, ConfigError, "image_size"),
    ],
)
def test_what_cannot_end_well_is_refused_first(
    weights: Path,
    tmp_path: Path,
    changes: dict[str, object],
    kind: type[Exception],
    expected: str,
) -> None:
    wanted = {"engine": "openvino", "output": "a.safetensors"} | changes
    wanted["output"] = tmp_path / str(wanted["output"])
    with pytest.raises(kind, match=expected):
        build_artefact(BuildRequest(weights=weights, **wanted))


def test_accuracy_of_several_pictures_a_request_is_refused_first(
    weights: Path, tmp_path: Path
) -> None:
    request = BuildRequest(weights=weights, output=tmp_path / "a.pt2", engine="aoti", batch=2)
    nothing = LabelledImages(name="none", truth={}, paths={})
    with pytest.raises(ConfigError, match="got --data with --batch 2"):
        build_artefact(request, nothing)


def test_an_artefact_is_not_exported_again(onnx_artefact: Path, tmp_path: Path) -> None:
    request = BuildRequest(weights=onnx_artefact, output=tmp_path / "a.onnx", engine="onnx")
    with pytest.raises(WeightsError, match="an artefact already"):
        build_artefact(request)
    again = BuildRequest(weights=onnx_artefact, output=onnx_artefact, engine="onnx")
    with pytest.raises(WeightsError, match="exists already"):
        build_artefact(again)


def test_the_weights_are_not_overwritten(weights: Path) -> None:
    request = BuildRequest(weights=weights, output=weights, engine="openvino", overwrite=True)
    with pytest.raises(WeightsError, match="weights themselves"):
        build_artefact(request)


def test_a_missing_exporter_names_its_extra(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "model.formats.onnx", raising=False)
    request = BuildRequest(weights=weights, output=tmp_path / "a.onnx", engine="onnx")
    with pytest.raises(MissingExtra, match=r"pip install -e '\.\[onnx\]'"):
        build_artefact(request)


@pytest.mark.parametrize("engine", ["inductor", "aoti"])
def test_a_missing_compiler_is_named(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    expected = r"no C\+\+ compiler \(no-such-compiler\); install one with: apt-get install -y g"
    run: Callable[[], object]
    if engine == "inductor":
        config = ModelConfig(weights=weights, engine="inductor")
        run = lambda: build_engine(config, image_hw=(64, 96))  # noqa: E731
    else:
        output = tmp_path / "a.pt2"
        request = BuildRequest(weights=weights, output=output, engine="aoti")
        run = lambda: build_artefact(request)  # noqa: E731
    with pytest.raises(EngineError, match=expected):
        run()
