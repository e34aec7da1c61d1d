# SPDX-License-Identifier: Apache-2.0
"""The export command: frames from what is named, exit codes, and one line for each error."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sightline
from model.card import read_card
from model.errors import PrecisionLost
from model.reparam import fuse
from model.weights import save_weights
from pipeline.calibration import sample_canvases, share_out
from pipeline.errors import SourceUnreadable
from tests.model.builders import make_calm_detector, make_card, make_weights
from tests.pipeline.media_factory import write_film


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(5):
        grey = np.full((60, 100, 3), 40 * number, np.uint8)
        Image.fromarray(grey).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize(
    ("lengths", "count", "shares"),
    [
        ([100], 10, [10]),
        ([100, 100], 10, [5, 5]),
        ([1, 1, 100], 10, [1, 1, 8]),
        ([3, 4], 10, [3, 4]),
        ([1, 1, 1, 1], 2, [1, 0, 1, 0]),
    ],
)
def test_frames_are_shared_out_alike(lengths: list[int], count: int, shares: list[int]) -> None:
    assert share_out(lengths, count) == shares


def test_a_folder_gives_its_pictures_as_the_network_sees_them(pictures: Path) -> None:
    canvases = sample_canvases([str(pictures)], count=10, image_size=160)
    assert [canvas.shape for canvas in canvases] == [(96, 160, 3)] * 5
    assert [int(canvas[48, 80, 0]) for canvas in canvases] == [0, 40, 80, 120, 160]


def test_a_video_gives_evenly_spread_frames(tmp_path: Path, pictures: Path) -> None:
    film = write_film(tmp_path / "film.mp4")
    canvases = sample_canvases([str(film), str(pictures / "*.png")], count=9, image_size=128)
    assert len(canvases) == 9
    first, *_, last = canvases[:4]
    assert not np.array_equal(first, last)


def test_what_gives_no_frame_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(SourceUnreadable, match=r"broken\.png: not an image"):
        sample_canvases([str(broken)], count=3, image_size=64)
    with pytest.raises(SourceUnreadable, match="no such file"):
        sample_canvases([str(tmp_path / "none.mp4")], count=3, image_size=64)
    with pytest.raises(SourceUnreadable, match="a camera"):
        sample_canvases(["rtsp://127.0.0.1/yard"], count=3, image_size=64)


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = sightline.main(["export", *map(str, arguments)])
    return code, capsys.readouterr().err


def test_an_error_is_one_line_and_exit_code_2(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = make_weights(tmp_path)
    output = tmp_path / "int8.safetensors"
    cases = [
        ((weights, "-o", weights, "--calibrate", pictures), "exists already"),
        ((weights, "-o", output, "--calibrate", tmp_path / "none"), "no such file"),
        ((weights, "-o", output, "--calibrate", pictures, "--frames", 0), "--frames"),
        ((weights, "-o", output, "--calibrate", pictures, "--check", pictures), "COCO data set"),
        ((weights, "-o", output, "--data", pictures), "COCO data set"),
        ((weights, "-o", output, "--precision", "int8"), "--calibrate"),
        ((weights, "-o", output, "--precision", "f32", "--calibrate", pictures), "no calibration"),
        ((weights, "-o", output, "--format", "onnx", "--calibrate", pictures), "int8 is for"),
        ((weights, "-o", output, "--format", "onnx"), "is named *.onnx"),
        ((weights, "-o", output, "--nms"), "--format onnx only"),
        (
            (weights, "-o", tmp_path / "a.onnx", "--format", "onnx", "--nms", "--max-iou", 2),
            "0 to 1",
        ),
    ]
    for arguments, expected in cases:
        code, printed = call(capsys, *arguments)
        assert code == 2
        assert expected in printed
        assert len(printed.splitlines()) == 1
    assert not output.exists()


def test_a_refused_artefact_is_exit_code_1(
    tmp_path: Path,
    pictures: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lose(*_: object) -> None:
        raise PrecisionLost("a: not written: AP falls from 0.4 to 0.3")

    monkeypatch.setattr("model.exporting.export", lose)
    weights = make_weights(tmp_path)
    code, printed = call(capsys, weights, "-o", tmp_path / "a", "--calibrate", pictures, pictures)
    assert code == 1
    assert printed == "sightline: a: not written: AP falls from 0.4 to 0.3\n"


@pytest.mark.compiled
def test_floats_need_no_frames_and_are_labelled_with_their_parity(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "calm.safetensors"
    save_weights(weights, fuse(make_calm_detector()), make_card())
    output = tmp_path / "graph.safetensors"
    assert sightline.main(["export", str(weights), "-o", str(output)]) == 0
    printed = capsys.readouterr().out
    built = read_card(output).built
    assert built is not None
    assert built.parity is not None
    assert built.parity.sentence() in printed
    assert f"{output}: size T, openvino, f32, licence Apache-2.0" in printed
