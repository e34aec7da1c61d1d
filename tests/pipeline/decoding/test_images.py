import io
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.decoding.images import ImageReader, decode_image
from pipeline.decoding.inputs import Source
from pipeline.errors import SourceUnreadable


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return decode_image(data).to_ndarray(format="rgb24")


def marked(width: int = 40, height: int = 24) -> Image.Image:
    """Red in the upper left corner, on black."""
    image = Image.new("RGB", (width, height))
    image.paste((255, 0, 0), (0, 0, 8, 8))
    return image


def red_corner(picture: np.ndarray) -> str:
    """Which corner is red."""
    height, width, _ = picture.shape
    corners = {
        "upper left": picture[2, 2],
        "upper right": picture[2, width - 3],
        "lower left": picture[height - 3, 2],
        "lower right": picture[height - 3, width - 3],
    }
    (found,) = (name for name, colour in corners.items() if colour[0] > 200 and colour[1] < 60)
    return found


@pytest.mark.parametrize(
    ("orientation", "corner", "size"),
    [
        (1, "upper left", (24, 40)),
        (2, "upper right", (24, 40)),
        (3, "lower right", (24, 40)),
        (4, "lower left", (24, 40)),
        (5, "upper left", (40, 24)),
        (6, "upper right", (40, 24)),
        (7, "lower right", (40, 24)),
        (8, "lower left", (40, 24)),
    ],
)
def test_an_image_is_turned_as_its_exif_tag_says(
    orientation: int, corner: str, size: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = pixels(encoded(marked(), "JPEG", exif=exif, quality=95))
    assert picture.shape[:2] == size
    assert red_corner(picture) == corner


def test_colours_are_those_of_the_file() -> None:
    image = Image.fromarray(np.random.default_rng(3).integers(0, 256, (31, 47, 3), np.uint8))
    np.testing.assert_array_equal(pixels(encoded(image)), np.asarray(image))


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK", "L", "LA", "1", "YCbCr"])
def test_every_kind_of_pixel_becomes_rgb(mode: str) -> None:
    kind = "PNG" if mode in ("RGBA", "P", "L", "LA", "1") else "TIFF"
    picture = pixels(encoded(marked().convert(mode), kind))
    assert picture.shape == (24, 40, 3)
    assert picture[2, 2].max() > picture[20, 20].max()


def test_grey_of_16_bits_keeps_its_shades() -> None:
    grey = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, axis=0)
    picture = pixels(encoded(Image.fromarray(grey)))
    np.testing.assert_array_equal(picture[0, :, 1], grey[0] >> 8)


def test_the_first_picture_of_an_animated_image_is_shown() -> None:
    first, second = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    data = encoded(first, "PNG", save_all=True, append_images=[second])
    assert pixels(data)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no image at all",
        encoded(marked(400, 300), "JPEG")[:900],
        encoded(marked(400, 300), "PNG")[:80],
        encoded(marked(), "WEBP")[:30],
    ],
    ids=["empty", "text", "half-a-jpeg", "half-a-png", "half-a-webp"],
)
def test_what_is_no_whole_image_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\S") as caught:
        decode_image(data)
    assert "\n" not in str(caught.value)
    assert "0x" not in str(caught.value)


def test_an_image_of_absurd_size_is_refused_before_it_is_unpacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match="exceeds limit"):
        decode_image(encoded(Image.new("RGB", (100, 100))))


EXIF = Image.Exif()
EXIF[0x0112] = 6
KINDS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
SOUND = {kind: encoded(marked(), kind, exif=EXIF) for kind in KINDS[:4]} | {
    "BMP": encoded(marked(), "BMP")
}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=12),
)
def test_a_damaged_image_is_decoded_or_refused(kind: str, damage: list[tuple[int, int]]) -> None:
    data = bytearray(SOUND[kind])
    for place, value in damage:
        data[place % len(data)] = value
    with suppress(ValueError):
        assert decode_image(data).width > 0


def folder_of(tmp_path: Path, *names: str) -> Source:
    for number, name in enumerate(names):
        Image.new("RGB", (8, 8), (number * 40, 0, 0)).save(tmp_path / name)
    return Source(name="shots", kind="images", location=str(tmp_path))


def test_a_folder_is_one_stream_in_natural_order_at_its_rate(tmp_path: Path) -> None:
    reader = ImageReader(folder_of(tmp_path, "f10.png", "f9.png", "f1.png"), rate=4.0)
    packets = list(reader.packets())
    reader.close()
    assert [pixels(raw.data)[0, 0, 0] for raw in packets] == [80, 40, 0]
    assert [raw.pts_ns for raw in packets] == [0, 250_000_000, 500_000_000]
    assert all(raw.keyframe and not raw.hidden for raw in packets)
    assert (reader.facts.num_frames, reader.facts.frame_rate) == (3, 4.0)
    assert reader.facts.duration_s == pytest.approx(0.75)


def test_one_image_is_a_stream_of_one(tmp_path: Path) -> None:
    folder_of(tmp_path, "only.png")
    source = Source(name="only", kind="image", location=str(tmp_path / "only.png"))
    assert len(list(ImageReader(source, rate=25.0).packets())) == 1


def test_an_image_that_goes_away_is_named_in_one_line(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9\n.png")
    folder_of(tmp_path, "a.png", name)
    reader = ImageReader(Source(name="shots", kind="images", location=str(tmp_path)), rate=25.0)
    (tmp_path / name).unlink()
    packets = reader.packets()
    next(packets)
    with pytest.raises(SourceUnreadable, match=r"caf\?\?\.png: cannot be read \(No such file"):
        next(packets)
