# SPDX-License-Identifier: Apache-2.0
"""Pictures as decoders leave them, of any format and size, with random samples."""

from dataclasses import dataclass, replace

import numpy as np

from model.cuda.coded import Coded, ColourMatrix, PixelFormat
from model.slicing import Region
from tests.model.cuda.reference import canvas, plane_sizes, sample_type

RGB_FORMATS = ("rgb24", "bgr24", "gbrp")


@dataclass(frozen=True, eq=False)
class Shot:
    """A look at a picture: of which part."""

    coded: Coded
    pixels: np.ndarray
    """uint8, the whole slot."""
    region: Region

    def expected(self, canvas_hw: tuple[int, int]) -> np.ndarray:
        """Levels from 0 to 255 by the reference in float64: 3 H W."""
        return canvas(self.coded, self.pixels, self.region, canvas_hw)

    def of(self, region: Region) -> "Shot":
        return replace(self, region=region)


def make_coded(
    pixel_format: PixelFormat,
    coded_hw: tuple[int, int],
    *,
    matrix: ColourMatrix = "bt709",
    full_range: bool = False,
    quarter_turns: int = 0,
    square_hw: tuple[int, int] | None = None,
    pitch_multiple: int = 64,
    gap: int = 0,
) -> Coded:
    """How a picture lies whose rows are padded to a multiple, with a gap between its planes."""
    upright = square_hw or coded_hw
    item = sample_type(pixel_format).itemsize
    offsets, pitches, end = [], [], 0
    for rows, samples in plane_sizes(pixel_format, coded_hw):
        pitch = -(-samples * item // pitch_multiple) * pitch_multiple
        offsets.append(-(-end // 64) * 64)
        pitches.append(pitch)
        end = offsets[-1] + rows * pitch + gap
    return Coded(
        pixel_format=pixel_format,
        coded_hw=coded_hw,
        offsets=tuple(offsets),
        pitches=tuple(pitches),
        matrix="rgb" if pixel_format in RGB_FORMATS else matrix,
        full_range=full_range,
        quarter_turns=quarter_turns,
        upright_hw=upright[::-1] if quarter_turns % 2 else upright,
        num_bytes=end,
    )


def make_shot(pixel_format: PixelFormat, coded_hw: tuple[int, int], **how: object) -> Shot:
    """The whole of a picture of random samples; what is not a sample is random too."""
    coded = make_coded(pixel_format, coded_hw, **how)
    random = np.random.default_rng(coded_hw[0] * 7919 + coded_hw[1])
    pixels = random.integers(0, 256, coded.num_bytes, np.uint8)
    if "10" in pixel_format:
        samples = pixels[: coded.num_bytes // 2 * 2].view("<u2")
        samples &= 1023
        samples <<= 6 if pixel_format == "p010le" else 0
    return Shot(coded, pixels, Region.whole(coded.upright_hw))
