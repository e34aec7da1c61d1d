# SPDX-License-Identifier: Apache-2.0
"""Colours of tracks, and a text colour that is legible on each, as luma and chroma."""

from typing import Final

import supervision as sv

from pipeline.nv12 import Matrix

_HEX: Final = (
    "#22c1f1", "#ff6b6b", "#ffd23f", "#3ddc84", "#b78aff", "#ff9f40", "#2ad4c3", "#ff7ac6",
    "#a3e635", "#5b9dff", "#f25f3a", "#e3b5ff", "#00b894", "#ffb3a7", "#c2c94a", "#7fd8ff",
)  # fmt: skip
"""Bright enough to stand out from video; neighbours differ in hue, as do tracks born together."""

_RED_BLUE: Final[dict[Matrix, tuple[float, float]]] = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
}
"""Shares of red and blue in luma; green has the rest."""


def luma_palette(palette: sv.ColorPalette, matrix: Matrix) -> sv.ColorPalette:
    """The colours' luma, in the first value OpenCV draws: all that one of one channel takes."""
    luma = (_luma_and_chroma(color, matrix)[0] for color in palette.colors)
    return sv.ColorPalette([sv.Color(r=0, g=0, b=value) for value in luma])


def chroma_palette(palette: sv.ColorPalette, matrix: Matrix) -> sv.ColorPalette:
    """The colours' chroma, in the first two values OpenCV draws."""
    chroma = (_luma_and_chroma(color, matrix)[1:] for color in palette.colors)
    return sv.ColorPalette([sv.Color(r=0, g=red, b=blue) for blue, red in chroma])


def _luma_and_chroma(color: sv.Color, matrix: Matrix) -> tuple[int, int, int]:
    """Luma, blue and red difference (Y, U, V) of limited range."""
    of_red, of_blue = _RED_BLUE[matrix]
    red, green, blue = (value / 255 for value in color.as_rgb())
    luma = of_red * red + (1 - of_red - of_blue) * green + of_blue * blue
    return (
        round(16 + 219 * luma),
        round(128 + 112 * (blue - luma) / (1 - of_blue)),
        round(128 + 112 * (red - luma) / (1 - of_red)),
    )


def _text_on(color: sv.Color) -> sv.Color:
    """Black on light colours, white on dark ones, by perceived brightness."""
    brightness = 0.299 * color.r + 0.587 * color.g + 0.114 * color.b
    return sv.Color.BLACK if brightness > 120 else sv.Color.WHITE


PALETTE: Final = sv.ColorPalette.from_hex(list(_HEX))
TEXT_PALETTE: Final = sv.ColorPalette([_text_on(color) for color in PALETTE.colors])
