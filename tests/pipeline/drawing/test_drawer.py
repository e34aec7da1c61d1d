# SPDX-License-Identifier: Apache-2.0
"""Drawing in place: what is seen, where, and what is remembered."""

from itertools import pairwise

import numpy as np
import pytest

from pipeline.drawing.drawer import Drawer
from pipeline.drawing.palette import PALETTE, TEXT_PALETTE
from pipeline.drawing.style import Style
from pipeline.tracking.tracks import Tracks

HW = (360, 640)


def make_drawer(trace_frames: int = 30) -> Drawer:
    return Drawer(["person", "car"], picture_hw=HW, trace_frames=trace_frames)


def tracks(*xyxy: tuple[float, ...], track_id: int = 1, class_id: int = 0) -> Tracks:
    count = len(xyxy)
    return Tracks(
        xyxy=np.array(xyxy, np.float32).reshape(-1, 4),
        score=np.full(count, 0.87, np.float32),
        class_id=np.full(count, class_id),
        track_id=np.arange(track_id, track_id + count) if track_id else np.zeros(count, np.int64),
    )


def drawn(drawer: Drawer, *frames: Tracks) -> np.ndarray:
    """The last of some frames, on black."""
    for frame in frames:
        picture = np.zeros((*HW, 3), np.uint8)
        drawer.draw(picture, frame)
    return picture


def colour_at_left_side(picture: np.ndarray, left: int, y: int) -> tuple[int, ...]:
    return tuple(picture[y, left].tolist())


def test_the_given_picture_is_drawn_on() -> None:
    assert drawn(make_drawer(), tracks((100, 100, 200, 300))).any()


def test_without_tracks_the_picture_stays_as_it_is() -> None:
    assert not drawn(make_drawer(), Tracks.empty()).any()


def test_a_track_keeps_its_colour_and_another_has_its_own() -> None:
    drawer = make_drawer()
    first = drawn(drawer, tracks((100, 100, 200, 300), track_id=5))
    later = drawn(drawer, tracks((300, 100, 400, 300), track_id=5, class_id=1))
    other = drawn(drawer, tracks((300, 100, 400, 300), track_id=6))
    assert colour_at_left_side(first, 100, 200) == colour_at_left_side(later, 300, 200)
    assert colour_at_left_side(other, 300, 200) != colour_at_left_side(later, 300, 200)


def test_without_identity_the_class_gives_the_colour() -> None:
    drawer = make_drawer()
    first = drawn(drawer, tracks((100, 100, 200, 300), track_id=0, class_id=0))
    again = drawn(drawer, tracks((300, 100, 400, 300), track_id=0, class_id=0))
    other = drawn(drawer, tracks((300, 100, 400, 300), track_id=0, class_id=1))
    assert colour_at_left_side(first, 100, 200) == colour_at_left_side(again, 300, 200)
    assert colour_at_left_side(other, 300, 200) != colour_at_left_side(again, 300, 200)


@pytest.mark.parametrize(
    "corner", [(0, 0), (560, 0), (-30, -30), (300, 2), (620, 200), (-20, 340), (639, 359)]
)
def test_a_label_at_the_edge_is_whole(corner: tuple[int, int]) -> None:
    left, top = corner
    box = tracks((left, top, left + 60, top + 80), class_id=1)
    inside = drawn(make_drawer(), tracks((300, 150, 301, 151), class_id=1))
    background = PALETTE.by_idx(1).as_bgr()
    label_px = int((inside[100:150] == background).all(axis=-1).sum())
    at_edge = int((drawn(make_drawer(), box) == background).all(axis=-1).sum())
    assert at_edge >= 0.95 * label_px


def test_a_trace_follows_the_bottom_centre() -> None:
    frames = [tracks((100 + 10 * step, 100, 140 + 10 * step, 200)) for step in range(15)]
    picture = drawn(make_drawer(), *frames)
    assert picture[200, 125].any()
    assert not drawn(make_drawer(), frames[-1])[200, 125].any()


def test_a_trace_reaches_back_a_bounded_number_of_frames() -> None:
    frames = [tracks((10 + 10 * step, 100, 50 + 10 * step, 200)) for step in range(40)]
    picture = drawn(make_drawer(trace_frames=10), *frames)
    last_centre = 30 + 10 * 39
    assert picture[200, last_centre - 80].any()
    assert not picture[195:206, : last_centre - 100].any()


@pytest.mark.parametrize(("trace_frames", "track_id"), [(0, 1), (30, 0)])
def test_no_trace_without_identity_or_length(trace_frames: int, track_id: int) -> None:
    steps = range(15)
    frames = [
        tracks((100 + 10 * step, 100, 140 + 10 * step, 200), track_id=track_id) for step in steps
    ]
    assert not drawn(make_drawer(trace_frames), *frames)[200, 100:235].any()


def test_traces_of_ever_new_identities_take_bounded_memory() -> None:
    drawer = make_drawer(trace_frames=10)
    picture = np.zeros((*HW, 3), np.uint8)
    for step in range(500):
        present = tracks((10, 100, 50, 200), (100, 100, 150, 200), track_id=1 + 2 * step)
        drawer.draw(picture, present if step % 3 else Tracks.empty())
        assert len(drawer._traces.trace.xy) <= 10 * 2


def test_boxes_beyond_the_picture_and_unknown_classes_are_drawn() -> None:
    drawer = make_drawer()
    assert drawn(drawer, tracks((-500, -500, 5000, 5000), class_id=77)).any()
    assert drawn(drawer, tracks((700, 400, 900, 500), class_id=1)).any()


def test_a_picture_that_cannot_be_drawn_on_in_place_is_refused() -> None:
    flipped = np.zeros((*HW, 3), np.uint8)[:, ::-1]
    with pytest.raises(ValueError, match="contiguous and writeable"):
        make_drawer().draw(flipped, Tracks.empty())


def test_another_size_in_mid_stream_is_drawn_too() -> None:
    drawer = make_drawer()
    drawn(drawer, tracks((100, 100, 200, 300)))
    small = np.zeros((120, 160, 3), np.uint8)
    drawer.draw(small, tracks((10, 30, 60, 100)))
    assert small.any()


def test_lines_and_text_grow_with_the_picture() -> None:
    styles = [Style.of(hw) for hw in ((240, 426), (432, 768), (1080, 1920), (2160, 3840))]
    for smaller, larger in pairwise(styles):
        assert smaller.line_px <= larger.line_px
        assert smaller.text_scale < larger.text_scale
    assert styles[0].line_px < styles[-1].line_px


def test_text_contrasts_with_its_background() -> None:
    for background, text in zip(PALETTE.colors, TEXT_PALETTE.colors, strict=True):
        light, dark = sorted((_luminance(background.as_rgb()), _luminance(text.as_rgb())))[::-1]
        assert (light + 0.05) / (dark + 0.05) > 4.5  # WCAG AA


def _luminance(rgb: tuple[int, int, int]) -> float:
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (channel / 255 for channel in rgb)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
