# SPDX-License-Identifier: Apache-2.0
"""Training samples: mosaic, affine, copy-paste, mixup, colours and flips, in this order.

Images are mixed only with images annotated for the same classes. A mosaic knows of a class only
what all its images know: of five sources, one without vehicles and two without people, mixed at
random, three mosaics in five could teach nothing about people. Mixed among their like they lose
nothing but strange neighbours, and every image is still the first of a mosaic once an epoch.

The values are the published recipe's. Axes: H and W of the sample, N objects, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from pydantic import Field

from model.config import Ratio, Settings
from model.letterbox import PAD, Letterbox
from training.colour import shift_colours
from training.pasting import join, mirror, paste_mirrored
from training.records import Objects, Split
from training.tiles import Matrix, Pictures, Tile, draw, move, scaling, translation

Amount = Annotated[float, Field(ge=0, lt=1)]
Degrees = Annotated[float, Field(ge=0, le=180)]
MIXUP_BETA: Final = 32.0


class Affine(Settings):
    """How far a sample is moved; each value is drawn evenly from both sides."""

    scale: Amount = 0.9
    """Enlarged by 1 - scale to 1 + scale."""
    translate: Amount = 0.1
    """Shares of its side."""
    rotate_deg: Degrees = 0.0
    shear_deg: Annotated[float, Field(ge=0, lt=90)] = 0.0


class Colours(Settings):
    """By what share colours change at most."""

    hue: Ratio = 0.015
    saturation: Ratio = 0.7
    value: Ratio = 0.4


class Augmentation(Settings):
    """What is done to training images, the published recipe's by default."""

    mosaic: Ratio = 1.0
    """Share of samples made of four images."""
    mixup: Ratio = 0.15
    """Share of mosaics blended with another one."""
    copy_paste: Ratio = 0.3
    """Share of the objects that can be cut out and hide little."""
    affine: Affine = Affine()
    colours: Colours = Colours()
    flip_left_right: Ratio = 0.5
    flip_up_down: Ratio = 0.0
    close_mosaic_epochs: Annotated[int, Field(ge=0)] = 15
    """Last epochs of a training, in which samples are single images."""

    def at(self, epoch: int, epochs: int) -> "Augmentation":
        """Return what is done in an epoch of so many."""
        if epoch < epochs - self.close_mosaic_epochs:
            return self
        return self.model_copy(update={"mosaic": 0.0, "mixup": 0.0})


NO_AUGMENTATION: Final = Augmentation(
    mosaic=0,
    mixup=0,
    copy_paste=0,
    affine=Affine(scale=0, translate=0),
    colours=Colours(hue=0, saturation=0, value=0),
    flip_left_right=0,
    close_mosaic_epochs=0,
)
"""Every image as evaluation sees it in a square."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """One image to train on."""

    pixels: UInt8[np.ndarray, "H W 3"]
    """In RGB."""
    objects: Objects
    """In its pixels; without crowds."""
    annotated: Bool[np.ndarray, " C"]


class Sampler:
    """Makes samples of the images of a split."""

    def __init__(self, split: Split, pictures: Pictures, augmentation: Augmentation) -> None:
        self._split = split
        self._pictures = pictures
        self._chosen = augmentation

    def sample(self, index: int, side_px: int, rng: np.random.Generator) -> Sample:
        """Make one sample around an image; all that is random comes from `rng`."""
        chosen = self._chosen
        mosaic = rng.random() < chosen.mosaic
        pixels, objects = self._composed(index, side_px, rng, mosaic=mosaic)
        if mosaic and rng.random() < chosen.mixup:
            partner = int(rng.choice(self._split.alike(index)))
            others = self._composed(partner, side_px, rng, mosaic=True)
            share = rng.beta(MIXUP_BETA, MIXUP_BETA)
            pixels = cv2.addWeighted(pixels, share, others[0], 1 - share, 0)
            objects = join((objects, others[1]))
        pixels = self._coloured(pixels, rng)
        pixels, objects = self._flipped(pixels, objects, rng)
        return Sample(pixels=pixels, objects=objects, annotated=self._split.annotated(index))

    def _composed(
        self, index: int, side_px: int, rng: np.random.Generator, *, mosaic: bool
    ) -> tuple[np.ndarray, Objects]:
        """Draw one image or four, and put copies of objects into it."""
        if mosaic:
            partners = rng.choice(self._split.alike(index), 3)
            tiles = _mosaic((index, *map(int, partners)), self._split, side_px, rng)
            canvas_px = 2 * side_px
        else:
            tiles = [_letterboxed(index, self._split, side_px)]
            canvas_px = side_px
        affine = affine_matrix(self._chosen.affine, canvas_px, side_px, rng)
        pixels = np.full((side_px, side_px, 3), PAD, np.uint8)
        found = []
        for tile in tiles:
            placed = _followed_by(affine, tile).placed()
            draw(placed, self._pictures, pixels)
            objects = self._split.objects(tile.index)
            found.append(move(objects[~objects.crowd], placed, (side_px, side_px)))
        return pixels, paste_mirrored(pixels, join(tuple(found)), self._chosen.copy_paste, rng)

    def _coloured(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        colours = self._chosen.colours
        widths = np.array((colours.hue, colours.saturation, colours.value))
        gains = 1 + rng.uniform(-1, 1, 3) * widths
        return shift_colours(pixels, gains) if widths.any() else pixels

    def _flipped(
        self, pixels: np.ndarray, objects: Objects, rng: np.random.Generator
    ) -> tuple[np.ndarray, Objects]:
        across, down = rng.random(2) < (self._chosen.flip_left_right, self._chosen.flip_up_down)
        if across:
            pixels, objects = pixels[:, ::-1], mirror(objects, pixels.shape[1])
        if down:
            pixels, objects = pixels[::-1], _turned_over(objects, pixels.shape[0])
        return pixels, objects


def affine_matrix(affine: Affine, canvas_px: int, side_px: int, rng: np.random.Generator) -> Matrix:
    """Draw a matrix that takes a square canvas, by its centre, to a square sample."""
    angle = np.deg2rad(rng.uniform(-affine.rotate_deg, affine.rotate_deg))
    scale = rng.uniform(1 - affine.scale, 1 + affine.scale)
    slant = np.tan(np.deg2rad(rng.uniform(-affine.shear_deg, affine.shear_deg, 2)))
    centre = rng.uniform(0.5 - affine.translate, 0.5 + affine.translate, 2) * side_px
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.array(((cosine, sine, 0), (-sine, cosine, 0), (0, 0, 1)))
    shear = np.array(((1, slant[0], 0), (slant[1], 1, 0), (0, 0, 1)))
    to_origin = translation(-canvas_px / 2, -canvas_px / 2)
    return translation(*centre) @ shear @ turn @ scaling(scale, scale) @ to_origin


def _followed_by(matrix: Matrix, tile: Tile) -> Tile:
    return Tile(
        index=tile.index,
        image_hw=tile.image_hw,
        matrix=matrix @ tile.matrix,
        region=tile.region,
    )


def _letterboxed(index: int, split: Split, side_px: int) -> Tile:
    height, width = map(int, split.image_hw[index])
    fitted = Letterbox.fit((height, width), (side_px, side_px))
    scale = scaling(fitted.resized_hw[1] / width, fitted.resized_hw[0] / height)
    return Tile(
        index=index,
        image_hw=(height, width),
        matrix=translation(fitted.pad_left_px, fitted.pad_top_px) @ scale,
        region=(0.0, 0.0, width, height),
    )


def _mosaic(
    indices: Sequence[int], split: Split, side_px: int, rng: np.random.Generator
) -> list[Tile]:
    """Lay four images around a point in the middle half of a canvas of twice the side."""
    centre = rng.integers(side_px // 2, side_px + side_px // 2, 2, endpoint=True)
    tiles = []
    for place, index in enumerate(indices):
        height, width = map(int, split.image_hw[index])
        scale = side_px / max(height, width)
        corner = centre - (1 - np.array((place % 2, place // 2))) * (width * scale, height * scale)
        low = np.maximum(-corner / scale, 0)
        high = np.minimum((2 * side_px - corner) / scale, (width, height))
        tiles.append(
            Tile(
                index=index,
                image_hw=(height, width),
                matrix=translation(*corner) @ scaling(scale, scale),
                region=(float(low[0]), float(low[1]), float(high[0]), float(high[1])),
            )
        )
    return tiles


def _turned_over(objects: Objects, height: int) -> Objects:
    xyxy = objects.xyxy.copy()
    xyxy[:, [1, 3]] = height - objects.xyxy[:, [3, 1]]
    return Objects(
        xyxy=xyxy,
        class_id=objects.class_id,
        crowd=objects.crowd,
        polygons=(None,) * len(objects),
    )
