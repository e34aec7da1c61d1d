# SPDX-License-Identifier: Apache-2.0
"""What the preprocessing kernel should give, in float64 from the definitions.

Shares nothing with `model.cuda.looks` but the types: planes are cut and turned by NumPy, each
colour is computed step by step.
"""

import numpy as np

from model.cuda.coded import Coded, PixelFormat
from model.slicing import Region

KR_KB = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
PLANES: dict[PixelFormat, tuple[tuple[int, int, int], ...]] = {
    "nv12": ((1, 1, 1), (2, 2, 2)),
    "p010le": ((1, 1, 1), (2, 2, 2)),
    "yuv420p": ((1, 1, 1), (1, 2, 2), (1, 2, 2)),
    "yuv422p": ((1, 1, 1), (1, 2, 1), (1, 2, 1)),
    "yuv444p": ((1, 1, 1), (1, 1, 1), (1, 1, 1)),
    "yuv420p10le": ((1, 1, 1), (1, 2, 2), (1, 2, 2)),
    "rgb24": ((3, 1, 1),),
    "bgr24": ((3, 1, 1),),
    "gbrp": ((1, 1, 1), (1, 1, 1), (1, 1, 1)),
}
"""Of each plane: samples side by side, and the pixels across and down that they stand for."""


def sample_type(pixel_format: PixelFormat) -> np.dtype:
    return np.dtype("<u2" if "10" in pixel_format else "u1")


def plane_sizes(pixel_format: PixelFormat, coded_hw: tuple[int, int]) -> list[tuple[int, int]]:
    """Rows and samples a row of each plane."""
    height, width = coded_hw
    return [
        (-(-height // down), samples * -(-width // across))
        for samples, across, down in PLANES[pixel_format]
    ]


def triangle(count_in: int, count_out: int) -> np.ndarray:
    """Weights of the antialiased triangle filter, one row a pixel that comes out."""
    scale = count_in / count_out
    support = max(scale, 1.0)
    centres = (np.arange(count_out) + 0.5) * scale
    places = np.arange(count_in) + 0.5
    weights = np.clip(1 - np.abs(places[None] - centres[:, None]) / support, 0, None)
    return weights / weights.sum(axis=1, keepdims=True)


def resized(plane: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    vertical, horizontal = triangle(plane.shape[0], hw[0]), triangle(plane.shape[1], hw[1])
    return vertical @ plane.astype(np.float64) @ horizontal.T


def canvas(
    coded: Coded, pixels: np.ndarray, region: Region, canvas_hw: tuple[int, int]
) -> np.ndarray:
    """Red, green and blue of a letterboxed region: 3 H W, in levels from 0 to 255."""
    letterbox = region.letterbox(canvas_hw)
    parts = [
        resized(part, letterbox.resized_hw)
        for part in cut_and_turned(coded, components(coded, pixels), region)
    ]
    drawn = np.full((3, *canvas_hw), 114.0)
    top, left = letterbox.pad_top_px, letterbox.pad_left_px
    height, width = letterbox.resized_hw
    drawn[:, top : top + height, left : left + width] = np.clip(to_rgb(coded, parts), 0, 255)
    return drawn


def components(coded: Coded, pixels: np.ndarray) -> list[np.ndarray]:
    """Luma and chroma, or red, green and blue, as they are coded; P010's without its shift."""
    kind = sample_type(coded.pixel_format)
    planes = []
    sizes = plane_sizes(coded.pixel_format, coded.coded_hw)
    for offset, pitch, (rows, samples) in zip(coded.offsets, coded.pitches, sizes, strict=True):
        lines = pixels[offset : offset + rows * pitch].reshape(rows, pitch)
        planes.append(np.ascontiguousarray(lines[:, : samples * kind.itemsize]).view(kind))
    match coded.pixel_format:
        case "nv12":
            return [planes[0], planes[1][:, 0::2], planes[1][:, 1::2]]
        case "p010le":
            return [planes[0] >> 6, planes[1][:, 0::2] >> 6, planes[1][:, 1::2] >> 6]
        case "rgb24":
            return [planes[0][:, 0::3], planes[0][:, 1::3], planes[0][:, 2::3]]
        case "bgr24":
            return [planes[0][:, 2::3], planes[0][:, 1::3], planes[0][:, 0::3]]
        case "gbrp":
            return [planes[2], planes[0], planes[1]]
    return planes


def cut_and_turned(coded: Coded, parts: list[np.ndarray], region: Region) -> list[np.ndarray]:
    """What of each component belongs to pixels of the upright region, upright."""
    height, width = coded.coded_hw
    turns = coded.quarter_turns
    if region == Region.whole(coded.upright_hw):
        return [np.rot90(part, turns) for part in parts]
    rows, columns = (np.rot90(places, turns) for places in np.indices((height, width)))
    shown = np.s_[region.top : region.top + region.height, region.left : region.left + region.width]
    first_row, last_row = rows[shown].min(), rows[shown].max()
    first_column, last_column = columns[shown].min(), columns[shown].max()
    cut = []
    for part in parts:
        down, across = round(height / part.shape[0]), round(width / part.shape[1])
        kept = part[
            first_row // down : last_row // down + 1,
            first_column // across : last_column // across + 1,
        ]
        cut.append(np.rot90(kept, turns))
    return cut


def to_rgb(coded: Coded, parts: list[np.ndarray]) -> np.ndarray:
    """Colours in levels of 255, not limited to what there is."""
    if coded.matrix == "rgb":
        return np.stack(parts)
    bits = 10 if "10" in coded.pixel_format else 8
    fine = 2 ** (bits - 8)
    luma, blue, red = parts
    if coded.full_range:
        most = 2**bits - 1
        luma, blue, red = luma / most, (blue - 128 * fine) / most, (red - 128 * fine) / most
    else:
        luma = (luma - 16 * fine) / (219 * fine)
        blue, red = (blue - 128 * fine) / (224 * fine), (red - 128 * fine) / (224 * fine)
    kr, kb = KR_KB[coded.matrix]
    r, b = luma + 2 * (1 - kr) * red, luma + 2 * (1 - kb) * blue
    g = (luma - kr * r - kb * b) / (1 - kr - kb)
    return 255 * np.stack((r, g, b))
