# SPDX-License-Identifier: Apache-2.0
"""Export from frames to a file, and what keeps it from writing one. The graph is made once."""

import json
import sys
from pathlib import Path
from typing import Any

import openvino
import pytest
from PIL import Image

from model import load
from model.average_precision import read_coco
from model.errors import ConfigError, DataError, MissingExtra, ModelError, PrecisionLost
from model.errors import WeightsError as Weights
from model.exporting import Request, export, hold_out
from model.weights import read_card
from tests.model.builders import CLASSES, make_image, make_weights

pytestmark = pytest.mark.compiled

CANVASES = [make_image(64, 96, seed=seed) for seed in range(10)]


@pytest.fixture(autouse=True)
def _short(quantised: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph that was made already, and few turns of the clock."""
    text, numbers = quantised
    monkeypatch.setattr(
        "model.exporting.quantise", lambda *_: openvino.Core().read_model(text, numbers)
    )
    monkeypatch.setattr("model.comparing.TURNS", 3)
    monkeypatch.setattr("model.comparing.TURN_S", 0.02)


def make_data(folder: Path, detector_weights: Path) -> Path:
    """Pictures whose labels are what the float detector finds in them."""
    (folder / "images").mkdir(parents=True)
    detector = load(detector_weights, engine="torch", image_size=96)
    boxes: list[dict[str, Any]] = []
    for number in range(4):
        picture = make_image(96, 96, seed=100 + number)
        Image.fromarray(picture).save(folder / "images" / f"{number}.png")
        found = detector(picture, square=True)
        for xyxy, class_id in zip(found.xyxy.tolist(), found.class_id.tolist(), strict=True):
            width, height = xyxy[2] - xyxy[0], xyxy[3] - xyxy[1]
            boxes.append({
                "id": len(boxes) + 1, "image_id": number, "category_id": class_id + 1,
                "bbox": [*xyxy[:2], width, height], "area": width * height, "iscrowd": 0,
            })  # fmt: skip
    detector.close()
    assert boxes
    tree = {
        "images": [{"id": number, "file_name": f"{number}.png"} for number in range(4)],
        "annotations": boxes,
        # numbered from 1, as COCO's own are
        "categories": [{"id": place + 1, "name": name} for place, name in enumerate(CLASSES)],
    }
    (folder / "instances_a.json").write_text(json.dumps(tree))
    return folder


def test_frames_become_a_file_that_says_what_it_costs(weights: Path, tmp_path: Path) -> None:
    output = tmp_path / "int8.safetensors"
    said: list[str] = []
    card = export(
        Request(weights=weights, output=output, image_size=96), CANVASES, None, said.append
    )
    assert read_card(output) == card
    assert (card.form, card.classes, card.source) == ("quantised", CLASSES, "made by a test")
    quantisation = card.quantisation
    assert quantisation is not None
    assert quantisation.check is not None
    assert quantisation.speed is not None
    assert (quantisation.frames, quantisation.check.images) == (8, 2)
    assert quantisation.check.kind == "agreement"
    assert 0 < quantisation.check.int8_ap < 1
    assert "This is not accuracy" in quantisation.check.sentence()
    assert quantisation.speed.float_ms > 0
    assert ("int8 pays" in quantisation.speed.sentence()) == (
        quantisation.speed.float_ms >= 1.05 * quantisation.speed.int8_ms
    )
    assert said[0] == "quantising on 8 frames"
    assert len(load(output, image_size=96)(CANVASES[0], min_score=0.01)) > 0
    assert [path.name for path in tmp_path.iterdir()] == [output.name]


def test_a_loss_beyond_the_limit_writes_nothing(weights: Path, tmp_path: Path) -> None:
    labelled = read_coco(make_data(tmp_path / "data", weights), CLASSES)
    output = tmp_path / "int8.safetensors"
    request = Request(weights=weights, output=output, image_size=96, max_ap_loss=0.01)
    with pytest.raises(PrecisionLost, match=r"AP on data at 96 px falls from \d.\d+ to 0") as lost:
        export(request, CANVASES, labelled)
    assert len(str(lost.value).splitlines()) == 1
    assert not output.exists()
    allowed = Request(weights=weights, output=output, image_size=96, max_ap_loss=1)
    card = export(allowed, CANVASES, labelled)
    assert card.quantisation is not None
    check = card.quantisation.check
    assert check is not None
    assert (check.kind, check.images, card.quantisation.frames) == ("accuracy", 4, 10)
    assert check.float_ap > 0.5  # its own boxes are the labels, and its weaker ones are faults
    assert check.int8_ap < check.float_ap - 0.01
    assert f"AP {check.int8_ap:.4f}" in check.sentence()


def test_what_is_held_out_is_not_calibrated_on() -> None:
    odd = [make_image(32, 32, seed=seed) for seed in range(3)]
    used, held = hold_out([*odd, *CANVASES])
    assert len(used) + len(held) == 13
    assert len(held) == 3
    assert all(canvas.shape == (64, 96, 3) for canvas in held)
    assert not any(one is other for one in used for other in held)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_frames_are_named(weights: Path, tmp_path: Path, count: int) -> None:
    with pytest.raises(DataError, match=f"{count} frames are too few"):
        export(Request(weights=weights, output=tmp_path / "a"), CANVASES[:count])


def test_frames_in_which_nothing_is_found_are_named(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model import checking

    blind = checking.SURE.model_copy(update={"min_score": 1.0})
    monkeypatch.setattr(checking, "SURE", blind)
    with pytest.raises(DataError, match="finds nothing in 2 frames"):
        export(Request(weights=weights, output=tmp_path / "a"), CANVASES)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(("module", "extra"), [("nncf", "int8"), ("faster_coco_eval", "evaluate")])
def test_a_missing_library_names_its_extra(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"extra: {extra}.*sightline\[{extra}\]"):
        export(Request(weights=weights, output=tmp_path / "a"), CANVASES)


def test_what_cannot_be_written_or_read_is_named_first(
    weights: Path, artefact: Path, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    there.write_text("kept")
    wrong: list[tuple[Request, type[ModelError], str]] = [
        (Request(weights=weights, output=there), Weights, "exists already"),
        (Request(weights=weights, output=tmp_path / "no" / "a"), Weights, "folder does not exist"),
        (Request(weights=weights, output=weights, overwrite=True), Weights, "weights themselves"),
        (Request(weights=tmp_path / "none", output=tmp_path / "a"), Weights, "No such file"),
        (Request(weights=artefact, output=tmp_path / "a"), Weights, "quantised already"),
        (
            Request(weights=weights, output=tmp_path / "a", image_size=100),
            ConfigError,
            "image_size",
        ),
    ]
    for request, kind, text in wrong:
        with pytest.raises(kind, match=text):
            export(request, CANVASES)
    assert there.read_text() == "kept"


def test_an_existing_file_is_replaced_when_asked(weights: Path, tmp_path: Path) -> None:
    there = make_weights(tmp_path)
    export(Request(weights=weights, output=there, image_size=96, overwrite=True), CANVASES)
    assert read_card(there).form == "quantised"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "found 0 of those"),
        ("{", "not JSON"),
        ("[]", "not in COCO's form"),
        ("{}", "not in COCO's form"),
        ('{"images": [], "annotations": [], "categories": []}', "no box of the model's classes"),
    ],
)
def test_data_that_is_not_coco_is_named(tmp_path: Path, content: str | None, expected: str) -> None:
    (tmp_path / "images").mkdir()
    if content is not None:
        (tmp_path / "instances_a.json").write_text(content)
    with pytest.raises(DataError, match=expected):
        read_coco(tmp_path, CLASSES)


def test_an_image_that_is_missing_is_named(weights: Path, tmp_path: Path) -> None:
    folder = make_data(tmp_path / "data", weights)
    (folder / "images" / "2.png").unlink()
    with pytest.raises(DataError, match=r"lacks 2\.png"):
        read_coco(folder, CLASSES)
