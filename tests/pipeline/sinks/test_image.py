# SPDX-License-Identifier: Apache-2.0
"""Single pictures."""

from pathlib import Path

import cv2
import pytest

from pipeline.errors import SinkError
from pipeline.nv12 import Matrix
from pipeline.sinks.image import ImageWriter
from tests.pipeline.pictures import nv12_of
from tests.pipeline.sinks.videos import psnr, smooth_picture


def write(
    writer: ImageWriter, *, hw: tuple[int, int] = (240, 320), matrix: Matrix = "bt601"
) -> None:
    picture = smooth_picture(height=hw[0], width=hw[1])
    writer.write(nv12_of(picture, matrix), picture_hw=hw, matrix=matrix)


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("hw", [(240, 320), (241, 319)])
@pytest.mark.parametrize(("name", "min_psnr"), [("a.jpg", 38), ("a.JPEG", 38), ("a.png", 40)])
def test_the_picture_comes_back(
    tmp_path: Path, name: str, min_psnr: float, hw: tuple[int, int], matrix: Matrix
) -> None:
    writer = ImageWriter(tmp_path / name)
    write(writer, hw=hw, matrix=matrix)
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.partial"]
    writer.finish()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    written = cv2.imread(str(tmp_path / name))
    assert psnr(written, smooth_picture(height=hw[0], width=hw[1])) > min_psnr


def test_an_unknown_suffix_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SinkError, match=r"a\.gif: cannot write pictures as '\.gif'.*\.png"):
        ImageWriter(Path("a.gif"))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=r"gone/a\.png: cannot be written"):
        write(ImageWriter(tmp_path / "gone" / "a.png"))


def test_an_abandoned_picture_keeps_its_temporary_name(tmp_path: Path) -> None:
    writer = ImageWriter(tmp_path / "a.png")
    write(writer)
    writer.abandon()
    assert [path.name for path in tmp_path.iterdir()] == ["a.png.partial"]


def test_without_a_picture_there_is_no_file(tmp_path: Path) -> None:
    ImageWriter(tmp_path / "a.png").finish()
    assert list(tmp_path.iterdir()) == []
