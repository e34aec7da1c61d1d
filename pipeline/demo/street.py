# SPDX-License-Identifier: Apache-2.0
"""A drawn street with known traffic: a clip whose rights are nobody else's.

Everything is drawn from polygons in metres, seen from the side: x to the right, y up from the
street. What drives and walks, and when, is in `TRAFFIC`, so what a detector finds can be compared
with what is there. It is a drawing: a detector of real pictures may miss some of it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import pi, sin
from pathlib import Path
from typing import Final

import av
import cv2
import numpy as np
from jaxtyping import UInt8

Colour = tuple[int, int, int]
Point = tuple[float, float]

HEIGHT, WIDTH = 540, 960
RATE: Final = 25
SECONDS: Final = 8
PX_A_METRE: Final = 52.0
HORIZON_PX: Final = 330
"""Row where the pavement on the far side begins."""
GRAINS: Final = 5
"""Pictures of noise that take turns."""
FRACTION_BITS: Final = 4
"""Of a pixel, with which corners are placed."""
GLASS, RUBBER, METAL = (52, 62, 74), (24, 24, 26), (168, 170, 172)
SKIN, HAIR = (198, 150, 122), (48, 36, 30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mover:
    """Something that crosses the street's picture."""

    kind: str
    colour: Colour
    start_m: float
    """Where its front is at first, from the left edge of the picture."""
    speed_mps: float
    """To the right; to the left below 0."""
    ground_px: int
    """Row on which it stands; what stands lower is nearer and hides the rest."""
    scale: float = 1.0


TRAFFIC: Final = (
    Mover(kind="person", colour=(150, 40, 44), start_m=3.0, speed_mps=1.3, ground_px=372),
    Mover(kind="person", colour=(40, 66, 120), start_m=14.5, speed_mps=-1.1, ground_px=378),
    Mover(kind="bus", colour=(196, 148, 30), start_m=24.0, speed_mps=-5.0, ground_px=424),
    Mover(kind="car", colour=(150, 24, 30), start_m=-3.0, speed_mps=4.5, ground_px=474, scale=1.15),
    Mover(
        kind="car", colour=(46, 84, 130), start_m=-17.0, speed_mps=5.0, ground_px=478, scale=1.15
    ),
)


def write_street(path: Path, *, seconds: float = SECONDS) -> Path:
    """Write the clip as H.264."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(RATE))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"preset": "veryfast", "crf": "18"}
        for picture in pictures(round(seconds * RATE)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def pictures(count: int) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Draw one picture after the other, the same ones every time."""
    street, random = _street(), np.random.default_rng(2)
    grains = [random.normal(0, 3, (HEIGHT, WIDTH, 1)).repeat(3, axis=2) for _ in range(GRAINS)]
    grains = [grain.round().astype(np.int16) for grain in grains]
    for index in range(count):
        picture = street.copy()
        for mover in sorted(TRAFFIC, key=lambda mover: mover.ground_px):
            _draw(picture, mover, index / RATE)
        soft = cv2.GaussianBlur(picture, (3, 3), 0.7)
        yield cv2.add(soft, grains[index % GRAINS], dtype=cv2.CV_8U)


class _Pen:
    """Draws shapes in a mover's own metres, its rear at x 0, its front towards where it goes."""

    def __init__(self, picture: UInt8[np.ndarray, "H W 3"], mover: Mover, x_m: float) -> None:
        self._picture, self._mover = picture, mover
        self._x_m = x_m
        self._ahead = 1 if mover.speed_mps > 0 else -1
        self._px = PX_A_METRE * mover.scale

    def polygon(self, colour: Colour, *corners: Point) -> None:
        points = np.array([self._place(corner) for corner in corners], np.int32)
        cv2.fillPoly(self._picture, [points], colour, cv2.LINE_AA, FRACTION_BITS)

    def box(self, colour: Colour, left: float, bottom: float, right: float, top: float) -> None:
        self.polygon(colour, (left, bottom), (right, bottom), (right, top), (left, top))

    def disc(self, colour: Colour, middle: Point, radius_m: float) -> None:
        radius = round(radius_m * self._px * 2**FRACTION_BITS)
        place = self._place(middle)
        cv2.circle(self._picture, place, radius, colour, -1, cv2.LINE_AA, FRACTION_BITS)

    def limb(self, colour: Colour, start: Point, end: Point, width_m: float) -> None:
        along = np.subtract(end, start)
        across = np.array([-along[1], along[0]]) / np.hypot(*along) * width_m / 2
        sides = (start + across, end + across, end - across, start - across)
        self.polygon(colour, *((float(x), float(y)) for x, y in sides))
        for point in (start, end):
            self.disc(colour, point, width_m / 2)

    def _place(self, corner: Point) -> tuple[int, int]:
        x = self._x_m * PX_A_METRE + self._ahead * corner[0] * self._px
        y = self._mover.ground_px - corner[1] * self._px
        return round(x * 2**FRACTION_BITS), round(y * 2**FRACTION_BITS)


def _draw(picture: UInt8[np.ndarray, "H W 3"], mover: Mover, at_s: float) -> None:
    pen = _Pen(picture, mover, mover.start_m + mover.speed_mps * at_s)
    _DRAWN[mover.kind](pen, mover.colour, at_s)


def _car(pen: _Pen, colour: Colour, at_s: float) -> None:
    pen.polygon((38, 38, 40), (-0.1, 0.02), (4.4, 0.02), (4.2, -0.1), (0.1, -0.1))
    body = ((0.0, 0.35), (4.3, 0.35), (4.28, 0.7), (3.9, 0.86), (3.1, 0.95), (2.5, 1.42),
            (1.0, 1.46), (0.35, 1.0), (0.02, 0.92))  # fmt: skip
    pen.polygon(colour, *body)
    pen.polygon(_shaded(colour, 1.25), (0.02, 0.92), (3.1, 0.95), (3.1, 0.89), (0.02, 0.86))
    pen.polygon(_shaded(colour, 0.7), (0.0, 0.35), (4.3, 0.35), (4.29, 0.5), (0.0, 0.5))
    pen.polygon(GLASS, (0.62, 0.98), (1.62, 0.99), (1.62, 1.38), (1.06, 1.37))
    pen.polygon(GLASS, (1.72, 0.99), (2.86, 0.99), (2.44, 1.36), (1.72, 1.38))
    pen.polygon((96, 108, 120), (2.0, 0.99), (2.3, 0.99), (2.05, 1.37), (1.85, 1.37))
    pen.box(_shaded(colour, 0.6), 1.66, 0.5, 1.68, 0.96)
    pen.box(METAL, 1.85, 0.8, 2.0, 0.83)
    pen.box((250, 240, 200), 4.08, 0.66, 4.28, 0.78)
    pen.box((170, 20, 20), 0.01, 0.72, 0.14, 0.88)
    for wheel in (0.85, 3.45):
        _wheel(pen, wheel, 0.32, at_s)


def _bus(pen: _Pen, colour: Colour, at_s: float) -> None:
    pen.polygon((38, 38, 40), (-0.1, 0.02), (10.6, 0.02), (10.4, -0.12), (0.1, -0.12))
    pen.polygon(
        colour, (0, 0.4), (10.5, 0.4), (10.5, 1.6), (10.3, 3.0), (10.1, 3.1), (0.1, 3.1), (0, 3.0)
    )
    pen.box(_shaded(colour, 0.65), 0, 0.4, 10.5, 0.75)
    pen.box(_shaded(colour, 1.2), 0.1, 2.85, 10.2, 3.1)
    for place in range(6):
        left = 0.4 + place * 1.4
        pen.box(GLASS, left, 1.5, left + 1.28, 2.6)
        pen.polygon((92, 104, 116), (left + 0.3, 1.5), (left + 0.6, 1.5), (left + 1.0, 2.6),
                    (left + 0.7, 2.6))  # fmt: skip
    pen.box(GLASS, 8.9, 0.55, 9.75, 2.6)
    pen.box(_shaded(colour, 0.5), 9.3, 0.55, 9.35, 2.6)
    pen.polygon(GLASS, (9.95, 1.4), (10.5, 1.4), (10.36, 2.65), (9.95, 2.65))
    pen.box((250, 240, 200), 10.3, 0.75, 10.5, 0.95)
    for wheel in (2.1, 7.9):
        _wheel(pen, wheel, 0.5, at_s)


def _wheel(pen: _Pen, x_m: float, radius_m: float, at_s: float) -> None:
    pen.disc(RUBBER, (x_m, radius_m), radius_m)
    pen.disc(METAL, (x_m, radius_m), radius_m * 0.58)
    for spoke in range(5):
        turn = at_s * 4 + spoke * 2 * pi / 5
        reach = radius_m * 0.4
        hole = (x_m + reach * sin(turn), radius_m + reach * sin(turn + pi / 2))
        pen.disc((70, 70, 74), hole, radius_m * 0.11)


def _person(pen: _Pen, colour: Colour, at_s: float) -> None:
    pen.polygon((96, 94, 92), (-0.3, 0.02), (0.3, 0.02), (0.2, -0.06), (-0.2, -0.06))
    trousers, step = (44, 46, 60), sin(at_s * 5.5)
    for side, shade in ((-1, 0.75), (1, 1.0)):
        swing = 0.3 * side * step
        knee, foot = (swing * 0.7, 0.5), (swing * 1.2 - 0.06, 0.08)
        pen.limb(_shaded(trousers, shade), (0, 0.92), knee, 0.17)
        pen.limb(_shaded(trousers, shade), knee, foot, 0.13)
        pen.limb(RUBBER, foot, (foot[0] + 0.14, 0.05), 0.09)
    _arm(pen, _shaded(colour, 0.7), -0.28 * -step)
    pen.polygon(colour, (-0.16, 0.88), (0.16, 0.88), (0.2, 1.4), (0.1, 1.48), (-0.1, 1.48),
                (-0.2, 1.4))  # fmt: skip
    _arm(pen, _shaded(colour, 1.15), -0.28 * step)
    pen.limb(SKIN, (0.01, 1.45), (0.02, 1.55), 0.1)
    pen.disc(SKIN, (0.03, 1.64), 0.115)
    pen.polygon(HAIR, (-0.1, 1.6), (-0.06, 1.76), (0.04, 1.78), (0.13, 1.72), (0.02, 1.68))


def _arm(pen: _Pen, colour: Colour, swing: float) -> None:
    elbow, hand = (swing * 0.8, 1.12), (swing * 1.5 + 0.08, 0.88)
    pen.limb(colour, (0, 1.4), elbow, 0.12)
    pen.limb(colour, elbow, hand, 0.1)
    pen.disc(SKIN, hand, 0.06)


_DRAWN: Final[dict[str, Callable[[_Pen, Colour, float], None]]] = {
    "person": _person,
    "car": _car,
    "bus": _bus,
}


def _shaded(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(round(value * factor), 255) for value in colour)
    return red, green, blue


def _street() -> UInt8[np.ndarray, "H W 3"]:
    """Draw what does not move: house fronts, pavement, asphalt."""
    random = np.random.default_rng(1)
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[:90] = np.linspace((120, 158, 196), (188, 204, 216), 90)[:, None].astype(np.uint8)
    fronts = ((0, 300, 40, (150, 132, 116)), (300, 620, 16, (128, 120, 114)),
              (620, 960, 60, (160, 146, 124)))  # fmt: skip
    for left, right, top, colour in fronts:
        picture[top:HORIZON_PX, left:right] = colour
        for row in range(top + 24, HORIZON_PX - 110, 84):
            for column in range(left + 26, right - 50, 74):
                picture[row : row + 56, column : column + 38] = (92, 100, 108)
                picture[row + 3 : row + 53, column + 3 : column + 35] = (58, 68, 80)
        picture[HORIZON_PX - 84 : HORIZON_PX, left + 20 : right - 20] = (66, 70, 74)
        picture[HORIZON_PX - 98 : HORIZON_PX - 84, left + 10 : right - 10] = _shaded(colour, 0.6)
    picture[HORIZON_PX:392] = (164, 160, 154)
    picture[388:394] = (128, 124, 120)
    picture[394:] = (88, 88, 92)
    picture[520:526] = (206, 204, 196)
    coarse = random.normal(0, 5, (HEIGHT // 4, WIDTH // 4, 1)).astype(np.float32)
    grain = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)[..., None]
    fine = random.normal(0, 5, (HEIGHT, WIDTH, 1))
    return np.clip(picture + grain + fine, 0, 255).astype(np.uint8)
