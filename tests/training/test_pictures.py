# SPDX-License-Identifier: Apache-2.0
"""Pixels of image files: the triangle filter where they shrink, read upright and no larger."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from model.errors import DataError
from model.letterbox import Letterbox, letterbox_image
from tests.training.datasets_on_disk import picture, write_image
from training.pictures import open_upright, resample


def triangle(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """The filter in float64, from its definition."""
    down, across = _weights(pixels.shape[0], height), _weights(pixels.shape[1], width)
    rows = np.tensordot(down, pixels.astype(np.float64), axes=(1, 0))
    return np.tensordot(rows, across, axes=(1, 1)).transpose(0, 2, 1)


def _weights(source: int, target: int) -> np.ndarray:
    scale = source / target
    centres = (np.arange(target) + 0.5) * scale
    distance = np.abs(np.arange(source) + 0.5 - centres[:, None])
    weights = np.maximum(1 - distance / max(scale, 1), 0)
    return weights / weights.sum(axis=1, keepdims=True)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size_hw", [(30, 47), (24, 32), (7, 9), (95, 127)])
def test_shrinking_is_the_triangle_filter(size_hw: tuple[int, int]) -> None:
    pixels = noise(96, 128)
    shrunk = resample(Image.fromarray(pixels), (0.0, 0.0, 128, 96), size_hw)
    assert np.abs(shrunk - triangle(pixels, *size_hw)).max() <= 2


def test_a_part_is_shrunk_as_it_is_in_the_whole() -> None:
    pixels = noise(96, 128)
    whole = triangle(pixels, 48, 64)
    part = resample(Image.fromarray(pixels), (20.0, 10.0, 60.0, 50.0), (20, 20))
    assert np.abs(part - whole[5:25, 10:30]).max() <= 2


def test_enlarging_is_bilinear() -> None:
    pixels = noise(12, 16)
    large = resample(Image.fromarray(pixels), (0.0, 0.0, 16, 12), (36, 48))
    # OpenCV places samples to a 32nd of a pixel.
    assert np.abs(large - triangle(pixels, 36, 48)).max() <= 255 / 32


def test_a_part_of_the_same_size_is_cut_out() -> None:
    pixels = noise(12, 16)
    cut = resample(Image.fromarray(pixels), (3.0, 2.0, 13.0, 9.0), (7, 10))
    np.testing.assert_array_equal(cut, pixels[2:9, 3:13])


def test_training_and_evaluation_shrink_alike() -> None:
    pixels = noise(96, 128)
    letterbox = Letterbox.fit((96, 128), (64, 64))
    seen = letterbox_image(pixels, letterbox)[8:56]
    np.testing.assert_array_equal(
        seen, resample(Image.fromarray(pixels), (0.0, 0.0, 128, 96), (48, 64))
    )


@pytest.mark.parametrize(
    ("scale", "size"),
    [(1.0, (160, 128)), (0.3, (160, 128)), (0.25, (80, 64)), (0.13, (80, 64)), (0.01, (20, 16))],
)
def test_a_jpeg_is_decoded_twice_as_large_as_wanted_at_least(
    tmp_path: Path, scale: float, size: tuple[int, int]
) -> None:
    path = tmp_path / "x.jpg"
    Image.fromarray(picture(128, 160)).save(path)
    assert open_upright(path, scale).size == size


def test_a_jpeg_decoded_small_looks_as_if_shrunk_from_the_whole(data: Path) -> None:
    path = data / "coco128/images/val2017/000000000139.jpg"
    whole = open_upright(path)
    size_hw = (whole.height // 4, whole.width // 4)
    small = open_upright(path, 0.25)
    assert small.width == whole.width // 2
    quick = resample(small, (0.0, 0.0, small.width, small.height), size_hw)
    assert np.abs(quick - triangle(np.asarray(whole), *size_hw)).mean() < 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_file_is_read_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(noise(24, 32))
    image.save(tmp_path / "x.png", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(tmp_path / "x.png"))
    np.testing.assert_array_equal(open_upright(tmp_path / "x.png"), expected)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_every_kind_of_picture_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    Image.fromarray(picture(24, 32)).convert(mode).save(path)
    assert open_upright(path).mode == "RGB"


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    path = write_image(tmp_path / "x.jpg", picture(64, 64))
    path.write_bytes(path.read_bytes()[:300])
    for damaged in (path, tmp_path / "gone.png"):
        with pytest.raises(DataError, match=f"{damaged}: not an image that can be read"):
            open_upright(damaged)
