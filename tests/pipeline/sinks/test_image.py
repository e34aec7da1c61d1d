# SPDX-License-Identifier: Apache-2.0
"""Single pictures."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.errors import SinkError
from pipeline.sinks.image import ImageWriter
from tests.pipeline.sinks.videos import psnr, smooth_picture


@pytest.mark.parametrize(("name", "min_psnr"), [("a.jpg", 38), ("a.JPEG", 38), ("a.png", 90)])
def test_the_picture_comes_back(tmp_path: Path, name: str, min_psnr: float) -> None:
    writer = ImageWriter(tmp_path / name)
    writer.write(smooth_picture())
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.partial"]
    writer.finish()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert psnr(cv2.imread(str(tmp_path / name)), smooth_picture()) > min_psnr


def test_an_unknown_suffix_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SinkError, match=r"a\.gif: cannot write pictures as '\.gif'.*\.png"):
        ImageWriter(Path("a.gif"))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=r"gone/a\.png: cannot be written"):
        ImageWriter(tmp_path / "gone" / "a.png").write(np.zeros((4, 4, 3), np.uint8))


def test_an_abandoned_picture_keeps_its_temporary_name(tmp_path: Path) -> None:
    writer = ImageWriter(tmp_path / "a.png")
    writer.write(smooth_picture())
    writer.abandon()
    assert [path.name for path in tmp_path.iterdir()] == ["a.png.partial"]


def test_without_a_picture_there_is_no_file(tmp_path: Path) -> None:
    ImageWriter(tmp_path / "a.png").finish()
    assert list(tmp_path.iterdir()) == []
