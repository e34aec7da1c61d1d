# SPDX-License-Identifier: Apache-2.0
"""Colours of tracks, and a text colour that is legible on each."""

from typing import Final

import supervision as sv

_HEX: Final = (
    "#22c1f1", "#ff6b6b", "#ffd23f", "#3ddc84", "#b78aff", "#ff9f40", "#2ad4c3", "#ff7ac6",
    "#a3e635", "#5b9dff", "#f25f3a", "#e3b5ff", "#00b894", "#ffb3a7", "#c2c94a", "#7fd8ff",
)  # fmt: skip
"""Bright enough to stand out from video; neighbours differ in hue, as do tracks born together."""


def _text_on(color: sv.Color) -> sv.Color:
    """Near-black on light colours, white on dark ones, by perceived brightness."""
    brightness = 0.299 * color.r + 0.587 * color.g + 0.114 * color.b
    return sv.Color(20, 20, 20) if brightness > 120 else sv.Color.WHITE


PALETTE: Final = sv.ColorPalette.from_hex(list(_HEX))
TEXT_PALETTE: Final = sv.ColorPalette([_text_on(color) for color in PALETTE.colors])
