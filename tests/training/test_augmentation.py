# SPDX-License-Identifier: Apache-2.0
"""Samples: whatever is done to a picture, its boxes still fit what is in it."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from model.config import load_settings
from model.errors import ConfigError
from model.letterbox import PAD, Letterbox
from tests.training.datasets_on_disk import COLOURS, Box, objects_of, picture, split_of, write_image
from training.augmentation import (
    NO_AUGMENTATION,
    Affine,
    Augmentation,
    Colours,
    Sample,
    Sampler,
    affine_matrix,
)
from training.colour import shift_colours
from training.image_store import ImageFiles
from training.pasting import mirror, paste_mirrored
from training.protocols import look
from training.records import Objects, Record, Split, no_objects
from training.sampling import sample_generator
from training.tiles import Tile, cut, move, scaling, translation

ONE: list[Box] = [(0, 40, 30, 100, 80)]
SEEDS = range(12)
STILL = {"colours": Colours(hue=0, saturation=0, value=0), "flip_left_right": 0}


def only(**changes: object) -> Augmentation:
    """No augmentation but this."""
    return NO_AUGMENTATION.model_copy(update=changes)


def sample(split: Split, augmentation: Augmentation, seed: int = 0, index: int = 0) -> Sample:
    sampler = Sampler(split, ImageFiles(split.paths), augmentation)
    return sampler.sample(index, 128, sample_generator(0, 0, seed))


def extents(pixels: np.ndarray, class_id: int) -> list[np.ndarray]:
    """Boxes around the connected parts that have at least half of a class's colour."""
    other = [channel for channel in range(3) if channel != class_id]
    strong = (pixels[..., class_id] > 127) & (pixels[..., other].max(axis=2) < 100)
    _, _, stats, _ = cv2.connectedComponentsWithStats(strong.astype(np.uint8), connectivity=4)
    return [np.array((x, y, x + w, y + h)) for x, y, w, h, area in stats[1:] if area > 8]


def assert_boxes_fit(found: Sample, tolerance_px: float = 1.0) -> int:
    """Every box fits a coloured part, and every part that is much of an object has its box."""
    objects = found.objects
    for class_id in range(len(COLOURS)):
        boxes = objects.xyxy[objects.class_id == class_id]
        parts = extents(found.pixels, class_id)
        assert len(parts) >= len(boxes)
        for box in boxes:
            assert min(np.abs(part - box).max() for part in parts) <= tolerance_px
        for part in parts:
            if np.prod(part[2:] - part[:2]) > 1000:  # of 6,700 that objects have at most
                assert min((np.abs(part - box).max() for box in boxes), default=99) <= tolerance_px
    return len(objects)


@pytest.mark.parametrize(
    "augmentation",
    [
        NO_AUGMENTATION,
        only(affine=Affine(scale=0.9, translate=0)),
        only(affine=Affine(scale=0, translate=0.3)),
        only(affine=Affine(scale=0, translate=0, rotate_deg=0.001)),
        only(flip_left_right=1),
        only(flip_up_down=1),
        only(flip_left_right=1, flip_up_down=1, affine=Affine(scale=0.5, translate=0.2)),
    ],
    ids=["letterbox", "scale", "translate", "turned by nothing", "left-right", "up-down", "all"],
)
def test_a_box_fits_after(tmp_path: Path, augmentation: Augmentation) -> None:
    split = split_of(tmp_path, [ONE])
    fitted = [assert_boxes_fit(sample(split, augmentation, seed)) for seed in SEEDS]
    assert sum(fitted) >= 8


@pytest.mark.parametrize("turn", [{"rotate_deg": 30}, {"shear_deg": 15}], ids=["turn", "shear"])
def test_an_outline_gives_the_exact_box_of_what_is_turned(
    tmp_path: Path, turn: dict[str, float]
) -> None:
    split = split_of(tmp_path, [ONE], outlined=True)
    augmentation = only(affine=Affine(scale=0.4, translate=0.1, **turn))
    fitted = [assert_boxes_fit(sample(split, augmentation, seed), 1.5) for seed in SEEDS]
    assert sum(fitted) >= 8


def test_a_box_without_outline_encloses_what_is_turned(tmp_path: Path) -> None:
    split = split_of(tmp_path, [ONE])
    augmentation = only(affine=Affine(scale=0, translate=0, rotate_deg=45))
    for seed in SEEDS:
        found = sample(split, augmentation, seed)
        (part,) = extents(found.pixels, 0)
        (box,) = found.objects.xyxy
        np.testing.assert_allclose(box, part, atol=1.5)


@pytest.mark.parametrize("rotate_deg", [0, 20])
def test_boxes_fit_in_a_mosaic(tmp_path: Path, rotate_deg: float) -> None:
    images: list[list[Box]] = [
        [(0, 40, 30, 100, 80)],
        [(1, 10, 20, 70, 100)],
        [(2, 60, 50, 150, 110), (0, 5, 5, 45, 35)],
        [],
    ]
    split = split_of(tmp_path, images, outlined=True)
    augmentation = only(
        mosaic=1, affine=Affine(scale=0.4, translate=0.1, rotate_deg=rotate_deg), copy_paste=0
    )
    seen = [
        assert_boxes_fit(sample(split, augmentation, seed), 1 if not rotate_deg else 1.5)
        for seed in range(40)
    ]
    assert sum(seen) > 80


def test_a_mosaic_fills_four_quarters_around_its_centre(tmp_path: Path) -> None:
    split = split_of(tmp_path, [[(0, 0, 0, 160, 160)]], size=(160, 160))
    augmentation = only(mosaic=1, affine=Affine(scale=0, translate=0))
    found = sample(split, augmentation)
    assert (found.pixels == COLOURS[0]).all()
    lengths = found.objects.xyxy[:, 2:] - found.objects.xyxy[:, :2]
    assert lengths.prod(axis=1).sum() == pytest.approx(128 * 128)


def test_a_small_mosaic_ends_at_its_canvas(tmp_path: Path) -> None:
    split = split_of(tmp_path, [[(0, 0, 0, 160, 160)]], size=(160, 160))
    small = []
    for seed in SEEDS:
        augmentation = only(mosaic=1, affine=Affine(scale=0.9, translate=0))
        found = sample(split, augmentation, seed)
        coloured = (found.pixels == COLOURS[0]).all(axis=2)
        drawn = coloured | (found.pixels == PAD).all(axis=2)
        assert drawn.all()
        boxes = found.objects.xyxy.round().astype(int)
        covered = np.zeros_like(coloured)
        for left, top, right, bottom in boxes:
            assert not covered[top:bottom, left:right].any()
            covered[top:bottom, left:right] = True
        assert coloured[covered].all()
        if not coloured[[0, 0, -1, -1], [0, -1, 0, -1]].any():  # all of the canvas is seen
            assert covered[coloured].all()
            small.append(coloured.mean())
    assert len(small) > 3
    assert max(small) > 0.3


def test_without_augmentation_a_sample_is_what_evaluation_sees(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (301, 203, 3), np.uint8)
    split = split_of(tmp_path, [[]], size=(301, 203))
    write_image(Path(split.paths[0]), noise)
    seen = look(split.paths[0], Letterbox.fit((301, 203), (128, 128)))
    np.testing.assert_array_equal(sample(split, NO_AUGMENTATION).pixels, seen)


def test_mixup_blends_two_mosaics_and_has_the_objects_of_both(tmp_path: Path) -> None:
    split = split_of(tmp_path, [[(0, 0, 0, 160, 160)]], size=(160, 160))
    augmentation = only(mosaic=1, mixup=1, affine=Affine(scale=0, translate=0))
    found = sample(split, augmentation)
    lengths = found.objects.xyxy[:, 2:] - found.objects.xyxy[:, :2]
    assert lengths.prod(axis=1).sum() == pytest.approx(2 * 128 * 128)
    assert np.abs(found.pixels.astype(int) - COLOURS[0]).max() <= 1


def test_mixup_needs_a_mosaic(tmp_path: Path) -> None:
    split = split_of(tmp_path, [ONE])
    assert len(sample(split, only(mosaic=0, mixup=1)).objects) == 1


def test_images_are_mixed_only_with_those_annotated_alike(tmp_path: Path) -> None:
    size = (160, 160)
    images: list[list[Box]] = [[(0, 0, 0, 160, 160)]] * 3 + [[(1, 0, 0, 160, 160)]] * 3
    red, green = (True, False, True), (False, True, True)
    split = split_of(tmp_path, images, size=size, annotated=[red] * 3 + [green] * 3)
    augmentation = only(mosaic=1, mixup=1, affine=Affine(scale=0, translate=0))
    for index in range(6):
        found = sample(split, augmentation, seed=index, index=index)
        assert found.annotated.tolist() == list(red if index < 3 else green)
        assert set(found.objects.class_id) == {0 if index < 3 else 1}
        assert (found.pixels[..., 1 if index < 3 else 0] <= 1).all()


def test_copies_are_mirrored_and_only_outlined_objects_are_copied() -> None:
    boxes: list[Box] = [(0, 10, 20, 40, 60), (1, 20, 70, 50, 110)]
    pixels = picture(120, 160, boxes)
    outlined, plain = objects_of(boxes, outlined=True), objects_of(boxes)
    mixed = type(plain)(
        xyxy=plain.xyxy,
        class_id=plain.class_id,
        crowd=plain.crowd,
        polygons=(outlined.polygons[0], None),
    )
    found = paste_mirrored(pixels, mixed, 1.0, np.random.default_rng(0))
    assert found.class_id.tolist() == [0, 1, 0]
    np.testing.assert_array_equal(found.xyxy[2], (120, 20, 150, 60))
    assert_boxes_fit(
        Sample(pixels=pixels, objects=found, annotated=np.ones(3, bool)), tolerance_px=1
    )
    assert paste_mirrored(pixels, plain, 1.0, np.random.default_rng(0)) is plain


def test_a_copy_hides_no_more_than_three_tenths_of_anything() -> None:
    centred: list[Box] = [(0, 50, 20, 110, 60)]  # its mirror image covers itself
    pixels = picture(120, 160, centred)
    objects = objects_of(centred, outlined=True)
    assert len(paste_mirrored(pixels, objects, 1.0, np.random.default_rng(0))) == 1


def test_a_share_of_the_candidates_is_copied() -> None:
    boxes: list[Box] = [(0, 2, 10 * row, 20, 10 * row + 8) for row in range(10)]
    objects = objects_of(boxes, outlined=True)
    found = paste_mirrored(picture(120, 160, boxes), objects, 0.3, np.random.default_rng(0))
    assert len(found) == 13


def test_mirroring_twice_changes_nothing() -> None:
    objects = objects_of([(0, 3, 5, 20, 30), (1, 40, 0, 64, 9)], outlined=True)
    again = mirror(mirror(objects, 64), 64)
    np.testing.assert_array_equal(again.xyxy, objects.xyxy)
    for left, right in zip(again.polygons, objects.polygons, strict=True):
        assert left is not None
        assert right is not None
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        ((10, 10, 13, 40), True),
        ((10, 10, 12, 40), False),  # 2 px thin
        ((60, 60, 90, 63), True),
        ((60, 60, 90, 62), False),
        ((-88, 10, 12, 20), True),  # 12 % is seen
        ((-90, 10, 10, 20), False),  # 10 % is seen
        ((0, 10, 296, 13), True),  # 98.7 to 1, and cut to less
    ],
)
def test_what_is_thin_or_hardly_seen_is_left_out(
    box: tuple[int, int, int, int], kept: bool
) -> None:
    whole = (-500.0, -500.0, 1000.0, 1000.0)
    tile = Tile(index=0, image_hw=(128, 128), matrix=np.eye(3), region=whole)
    assert len(move(objects_of([(0, *box)]), tile, (128, 128))) == kept


def test_a_line_a_hundred_times_as_long_as_wide_is_left_out() -> None:
    tile = Tile(index=0, image_hw=(400, 400), matrix=np.eye(3), region=(0.0, 0.0, 400, 400))
    lines = objects_of([(0, 0, 0, 297, 3), (0, 0, 0, 303, 3)])
    assert len(move(lines, tile, (400, 400))) == 1


def test_cutting_a_polygon_leaves_what_is_inside() -> None:
    diamond = np.array(((50, 0), (100, 50), (50, 100), (0, 50)), float)
    left = cut(diamond, (0, 0, 50, 100))
    assert left.min(axis=0).tolist() == [0, 0]
    assert left.max(axis=0).tolist() == [50, 100]
    corner = cut(diamond, (0, 0, 40, 40))
    np.testing.assert_allclose(sorted(map(tuple, corner)), [(10, 40), (40, 10), (40, 40)])
    assert len(cut(diamond, (0, 0, 10, 10))) == 0


def test_crowds_are_not_learned(tmp_path: Path) -> None:
    split = split_of(tmp_path, [ONE])
    record = split[0]
    crowd = Objects(
        xyxy=record.objects.xyxy,
        class_id=record.objects.class_id,
        crowd=np.array([True]),
        polygons=(None,),
    )
    crowded = Record(
        path=record.path,
        image_hw=record.image_hw,
        objects=crowd,
        annotated=record.annotated,
        folder="",
    )
    assert len(sample(Split("train", split.classes, [crowded]), NO_AUGMENTATION).objects) == 0


def test_colours_without_gain_stay_and_value_scales() -> None:
    pixels = picture(40, 60, [(0, 0, 0, 20, 20), (1, 20, 0, 40, 20), (2, 40, 0, 60, 20)])
    same = shift_colours(pixels, np.ones(3))
    assert np.abs(same.astype(int) - pixels).max() <= 2
    darker = shift_colours(pixels, np.array((1.0, 1.0, 0.5)))
    np.testing.assert_allclose(darker, pixels // 2, atol=2)
    grey = shift_colours(pixels, np.array((1.0, 0.0, 1.0)))
    assert np.ptp(grey.astype(int), axis=2).max() == 0


def test_hue_goes_around_the_circle() -> None:
    blue = picture(2, 2, [(2, 0, 0, 2, 2)])  # hue 120 of 180
    shifted = shift_colours(blue, np.array((1.5, 1.0, 1.0)))
    np.testing.assert_array_equal(shifted, picture(2, 2, [(0, 0, 0, 2, 2)]))


def test_the_matrix_turns_about_the_centre_and_moves_by_shares() -> None:
    rng = np.random.default_rng(0)
    affine = Affine(scale=0, translate=0.25, rotate_deg=180)
    for _ in SEEDS:
        matrix = affine_matrix(affine, 256, 128, rng)
        centre = matrix @ (128, 128, 1)
        assert (np.abs(centre[:2] - 64) <= 32).all()
        np.testing.assert_allclose(np.linalg.det(matrix), 1)


def test_an_upright_tile_ends_at_whole_pixels_and_keeps_its_neighbours() -> None:
    matrix = translation(3.3, 7.8) @ scaling(0.37, 0.37)
    left = Tile(index=0, image_hw=(100, 100), matrix=matrix, region=(0.0, 0.0, 41.0, 100.0))
    right = Tile(index=0, image_hw=(100, 100), matrix=matrix, region=(41.0, 0.0, 100.0, 100.0))
    end = (left.placed().matrix @ (41, 0, 1))[0]
    assert end == pytest.approx((right.placed().matrix @ (41, 0, 1))[0])
    assert end == pytest.approx(round(end))


def test_the_last_epochs_close_the_mosaic() -> None:
    augmentation = Augmentation()
    assert augmentation.at(84, 100) is augmentation
    closed = augmentation.at(85, 100)
    assert (closed.mosaic, closed.mixup) == (0, 0)
    assert closed.affine == augmentation.affine
    assert Augmentation(close_mosaic_epochs=0).at(99, 100).mosaic == 1


def test_the_defaults_are_the_published_recipe() -> None:
    assert Augmentation().model_dump() == {
        "mosaic": 1.0,
        "mixup": 0.15,
        "copy_paste": 0.3,
        "affine": {"scale": 0.9, "translate": 0.1, "rotate_deg": 0.0, "shear_deg": 0.0},
        "colours": {"hue": 0.015, "saturation": 0.7, "value": 0.4},
        "flip_left_right": 0.5,
        "flip_up_down": 0.0,
        "close_mosaic_epochs": 15,
    }


def test_a_wrong_value_is_named() -> None:
    with pytest.raises(ConfigError, match=r"affine\.scale: input should be less than 1"):
        load_settings(Augmentation, None, ["affine.scale=1.5"])


def test_an_image_without_objects_gives_a_sample_without_objects(tmp_path: Path) -> None:
    found = sample(split_of(tmp_path, [[]]), Augmentation())
    assert len(found.objects) == len(no_objects()) == 0
    assert found.pixels.shape == (128, 128, 3)
