# SPDX-License-Identifier: Apache-2.0
"""What the card of a released model adds: whose data, how good, how best run, where it fails."""

from typing import Annotated

from pydantic import Field

from model.config import Ratio, Settings

Figure = Annotated[float, Field(ge=-1, le=1)]
"""From 0 to 1; -1 where there was no object to find."""
Line = Annotated[str, Field(min_length=1, max_length=400, pattern=r"^[^\n]+$")]
Count = Annotated[int, Field(ge=0)]
ImageSize = Annotated[int, Field(ge=32, le=4096, multiple_of=32)]


class DataSource(Settings):
    """A part of the data, and who allows its use."""

    name: Line
    """Where it is from: publisher and name there."""
    licence: Line


class Figures(Settings):
    """Average precision of one class, or the mean of all, as COCO has it."""

    ap: Figure
    ap50: Figure
    ap75: Figure
    ap_small: Figure
    ap_medium: Figure
    ap_large: Figure


class Reliability(Settings):
    """What scores of one range are worth."""

    above: Ratio
    """Boxes that score from here to the next range."""
    boxes: Count
    score: Ratio
    """Their mean score, 0 where there is none; equal to the precision if scores are honest."""
    precision: Ratio
    """Share of them that are right, at an overlap of one half."""


class Measured(Settings):
    """How good it is, on images it has never seen."""

    split: Line
    images: Count
    protocol: Line
    image_size: ImageSize
    """Long side of the pictures, in pixels."""
    overall: Figures
    classes: dict[str, Figures]
    calibration: tuple[Reliability, ...]
    """By rising score."""


class ReleaseNotes(Settings):
    """What no program can find out about a model, written by who releases it."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,40}$")]
    """What it is called: `--model NAME`."""
    licence: Line
    """Of the weights."""
    data: Annotated[tuple[DataSource, ...], Field(min_length=1)]
    command: Line
    """What trained it."""
    min_score: Ratio
    """The score to keep boxes from where nobody says another, chosen on the val split."""
    weaknesses: Annotated[tuple[Line, ...], Field(min_length=1)]
    """Where it is known to fail."""


class Released(ReleaseNotes):
    """What stands in the card."""

    measured: Measured
