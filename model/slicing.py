# SPDX-License-Identifier: Apache-2.0
"""Where to look in a picture: the whole of it, and tiles that show its parts larger.

A picture that is much larger than the network's canvas loses what is small and far away. Each look
shows a region on a canvas of the same size, so one engine of a fixed batch serves them all.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from model.letterbox import Letterbox

MOST_LOOKS: Final = 17
"""The whole and a grid of 4 x 4: it bounds messages and slots."""
LEAST_GAIN: Final = 1.25
"""Tiles that magnify less than this against the whole are not worth their looks."""
_CLOSE: Final = 0.97  # of the most a grid magnifies, from which on fewer tiles are worth more
ALIGNMENT: Final = 4
"""Regions begin at multiples of this: on whole samples of the coarsest colour planes there are."""


class Region(NamedTuple):
    """A part of a picture, in its upright, square pixels."""

    left: int
    top: int
    width: int
    height: int

    @classmethod
    def whole(cls, source_hw: tuple[int, int]) -> "Region":
        """All of a picture."""
        return cls(0, 0, source_hw[1], source_hw[0])

    def lies_in(self, other: "Region") -> bool:
        """Whether the region has pixels, none of them outside another."""
        return (
            min(self.width, self.height) > 0
            and other.left <= self.left
            and other.top <= self.top
            and self.left + self.width <= other.left + other.width
            and self.top + self.height <= other.top + other.height
        )

    def letterbox(self, canvas_hw: tuple[int, int]) -> Letterbox:
        """How the region lies on a canvas; its source is the region."""
        return Letterbox.fit((self.height, self.width), canvas_hw)

    def as_coded(self, coded_hw: tuple[int, int], quarter_turns: int) -> "Region":
        """Where it lies before the picture is turned counter-clockwise."""
        left, top, width, height = self
        below, beside = coded_hw[0] - left - width, coded_hw[1] - top - height
        match quarter_turns:
            case 1:
                return Region(beside, left, height, width)
            case 2:
                return Region(coded_hw[1] - left - width, coded_hw[0] - top - height, width, height)
            case 3:
                return Region(top, below, height, width)
        return self


def choose_looks(
    source_hw: tuple[int, int], canvas_hw: tuple[int, int], budget: int, overlap: float
) -> tuple[Region, ...]:
    """Return the whole picture, then the tiles of the grid that magnifies most.

    Tiles are never enlarged: where fewer show the picture at its own resolution, there are fewer,
    and none where they would show hardly more than the whole.

    Args:
        source_hw: Height and width of the picture.
        canvas_hw: Height and width of the network's canvas.
        budget: Looks in all, at most.
        overlap: Share of a tile's side that it has in common with its neighbour, at least.
    """
    whole = Region.whole(source_hw)
    grids = [
        _Grid.fit(source_hw, canvas_hw, (rows, columns), overlap)
        for rows in range(1, budget)
        for columns in range(1, (budget - 1) // rows + 1)
    ]
    most = max((grid.scale for grid in grids), default=0.0)
    if most < LEAST_GAIN * _scale(source_hw, canvas_hw):
        return (whole,)
    close = (grid for grid in grids if grid.scale >= _CLOSE * most)
    best = min(close, key=lambda grid: (grid.num_tiles, -grid.scale))
    return (whole, *best.tiles(source_hw))


def part_shown(
    shares: tuple[float, float, float, float] | None, source_hw: tuple[int, int]
) -> Region:
    """Return the part of a picture within these shares of it, grown to aligned edges.

    Args:
        shares: Left, top, right and bottom; None for the whole.
        source_hw: Height and width of the picture.
    """
    if shares is None:
        return Region.whole(source_hw)
    height, width = source_hw
    left, right = _aligned_span(shares[0], shares[2], width)
    top, bottom = _aligned_span(shares[1], shares[3], height)
    return Region(left, top, right - left, bottom - top)


def _aligned_span(first: float, last: float, length: int) -> tuple[int, int]:
    """Where a span begins, and where it ends: what lies before and beyond it is aligned."""
    start = int(first * length) // ALIGNMENT * ALIGNMENT
    end = length - int((1 - last) * length) // ALIGNMENT * ALIGNMENT
    return min(start, length - 1), end


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grid:
    """Tiles of one size in rows and columns."""

    rows: int
    columns: int
    tile_hw: tuple[int, int]
    scale: float
    """Canvas pixels per picture pixel."""

    @classmethod
    def fit(
        cls,
        source_hw: tuple[int, int],
        canvas_hw: tuple[int, int],
        counts: tuple[int, int],
        overlap: float,
    ) -> "_Grid":
        """The smallest tiles that cover the picture, or larger ones that fill the canvas."""
        axes = tuple(zip(source_hw, counts, strict=True))
        height, width = (_aligned(n / (1 + (count - 1) * (1 - overlap)), n) for n, count in axes)
        if _scale((height, width), canvas_hw) > 1:
            sides = zip((height, width), canvas_hw, source_hw, strict=True)
            height, width = (_aligned(max(side, room), n) for side, room, n in sides)
        tile_hw = height, width
        rows, columns = counts
        return cls(rows=rows, columns=columns, tile_hw=tile_hw, scale=_scale(tile_hw, canvas_hw))

    @property
    def num_tiles(self) -> int:
        return self.rows * self.columns

    def tiles(self, source_hw: tuple[int, int]) -> Iterator[Region]:
        """Row by row, spread evenly from edge to edge."""
        height, width = self.tile_hw
        for top in _starts(source_hw[0] - height, self.rows):
            for left in _starts(source_hw[1] - width, self.columns):
                yield Region(left, top, width, height)


def _scale(source_hw: tuple[int, int], canvas_hw: tuple[int, int]) -> float:
    return min(canvas_hw[0] / source_hw[0], canvas_hw[1] / source_hw[1])


def _aligned(side: float, length: int) -> int:
    """The next whole side that leaves an aligned rest of the length, so the last tile fits too."""
    whole = -int(-side // 1)
    return min(whole + (length - whole) % ALIGNMENT, length)


def _starts(rest: int, count: int) -> list[int]:
    """Where tiles begin that leave a rest of the picture beside each."""
    steps = rest // ALIGNMENT
    return [place * steps // max(count - 1, 1) * ALIGNMENT for place in range(count)]
