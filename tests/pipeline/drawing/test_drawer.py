# SPDX-License-Identifier: Apache-2.0
"""Drawing in place: what is seen, where, and what is remembered."""

from itertools import pairwise

import numpy as np
import pytest

from pipeline import nv12
from pipeline.drawing.drawer import Drawer
from pipeline.drawing.palette import PALETTE, TEXT_PALETTE, chroma_palette, luma_palette
from pipeline.drawing.style import Style
from pipeline.drawing.tint import reach_px
from pipeline.tracking.tracks import Tracks
from tests.pipeline.pictures import bgr_of, black

HW = (360, 640)


def make_drawer(
    trace_frames: int = 30, *, hw: tuple[int, int] = HW, matrix: nv12.Matrix = "bt709"
) -> Drawer:
    return Drawer(["person", "car"], picture_hw=hw, matrix=matrix, trace_frames=trace_frames)


def tracks(*xyxy: tuple[float, ...], track_id: int = 1, class_id: int = 0) -> Tracks:
    count = len(xyxy)
    return Tracks(
        xyxy=np.array(xyxy, np.float32).reshape(-1, 4),
        score=np.full(count, 0.87, np.float32),
        class_id=np.full(count, class_id),
        track_id=np.arange(track_id, track_id + count) if track_id else np.zeros(count, np.int64),
    )


def drawn(drawer: Drawer, *frames: Tracks) -> np.ndarray:
    """The colours of the last of some frames, on black."""
    for frame in frames:
        picture = black(HW)
        drawer.draw(picture, frame)
    return np.rint(bgr_of(picture))


def colour_at_left_side(picture: np.ndarray, left: int, y: int) -> tuple[int, ...]:
    return tuple(picture[y, left].tolist())


def near(picture: np.ndarray, bgr: tuple[int, ...]) -> np.ndarray:
    """Which pixels have a colour, as far as whole numbers of luma and chroma tell."""
    return np.abs(picture - np.array(bgr)).max(axis=-1) <= 3


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
    label_px = int(near(inside[100:150], background).sum())
    at_edge = int(near(drawn(make_drawer(), box), background).sum())
    assert label_px > 300
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
    picture = black(HW)
    for step in range(500):
        present = tracks((10, 100, 50, 200), (100, 100, 150, 200), track_id=1 + 2 * step)
        drawer.draw(picture, present if step % 3 else Tracks.empty())
        for traces in (drawer._traces, drawer._chroma_traces):
            assert len(traces.trace.xy) <= 10 * 2


def test_boxes_beyond_the_picture_and_unknown_classes_are_drawn() -> None:
    drawer = make_drawer()
    assert drawn(drawer, tracks((-500, -500, 5000, 5000), class_id=77)).any()
    assert drawn(drawer, tracks((700, 400, 900, 500), class_id=1)).any()


def test_a_picture_that_cannot_be_drawn_on_in_place_is_refused() -> None:
    flipped = black(HW)[:, ::-1]
    with pytest.raises(ValueError, match="contiguous and writeable"):
        make_drawer().draw(flipped, Tracks.empty())


def test_another_size_in_mid_stream_is_drawn_too() -> None:
    drawer = make_drawer()
    drawn(drawer, tracks((100, 100, 200, 300)))
    small = black((120, 160))
    drawer.draw(small, tracks((10, 30, 60, 100)))
    assert bgr_of(small).any()


SIZES = [(240, 426), (432, 768), (720, 1280), (1080, 1920), (2160, 3840)]


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("hw", SIZES)
@pytest.mark.parametrize("shift", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_a_box_is_of_its_tracks_colour_as_wide_as_its_lines_are(
    hw: tuple[int, int], shift: tuple[int, int], matrix: nv12.Matrix
) -> None:
    """Luma and chroma agree on every pixel of a line, wherever in the 2 x 2 grid it lies."""
    left, top = 60 + shift[0], 80 + shift[1]
    drawer = make_drawer(0, hw=hw, matrix=matrix)
    for track_id in (1, 2, 3):
        picture = black(HW)
        drawer.draw(picture, tracks((left, top, left + 101, top + 81), track_id=track_id))
        colours = bgr_of(picture, matrix)
        across = np.s_[top + 40, left - 20 : left + 20]
        down = np.s_[top + 61 : top + 101, left + 50]
        for line in (across, down):
            lit = nv12.luma(picture)[line] != nv12.BLACK
            assert lit.sum() == 1 + 2 * reach_px(Style.of(hw).line_px)
            assert near(colours[line][lit], PALETTE.by_idx(track_id).as_bgr()).all()


@pytest.mark.parametrize("hw", SIZES)
@pytest.mark.parametrize("shift", [(0, 0), (1, 1)])
def test_nothing_is_touched_beyond_lines_labels_and_traces(
    hw: tuple[int, int], shift: tuple[int, int]
) -> None:
    rng = np.random.default_rng(3)
    source = rng.integers(40, 200, nv12.shape(HW), np.uint8)
    drawer = make_drawer(hw=hw)
    reach = reach_px(Style.of(hw).line_px)
    for step in range(12):
        left, top = 90 + 5 * step + shift[0], 110 + shift[1]
        picture = source.copy()
        drawer.draw(picture, tracks((left, top, left + 80, top + 60)))
    allowed = np.zeros(HW, bool)
    allowed[top - reach : top + 61 + reach, left - reach : left + 81 + reach] = True
    allowed[top + reach + 1 : top + 60 - reach, left + reach + 1 : left + 80 - reach] = False
    label = np.s_[top - 70 : top + 1, left - 3 : left + 420]
    allowed[label] = True
    trace = np.s_[top + 60 - reach : top + 61 + reach, left - 60 - reach : left + 41 + reach]
    allowed[trace] = True
    touched = nv12.luma(picture) != nv12.luma(source)
    assert touched.sum() > 500
    assert not (touched & ~allowed).any()
    pairs = (nv12.chroma(picture) != nv12.chroma(source)).any(axis=-1)
    reachable = allowed.reshape(HW[0] // 2, 2, HW[1] // 2, 2).any(axis=(1, 3))
    assert pairs.sum() > 100
    assert not (pairs & ~reachable).any()


def test_a_trace_is_of_its_tracks_colour() -> None:
    frames = [tracks((100 + 8 * step, 100, 140 + 8 * step, 200 + step)) for step in range(15)]
    drawer = make_drawer(hw=(1080, 1920))
    for frame in frames:
        picture = black(HW)
        drawer.draw(picture, frame)
    along = [bgr_of(picture)[200 + step, 120 + 8 * step] for step in range(1, 9)]
    assert near(np.array(along), PALETTE.by_idx(1).as_bgr()).all()


def test_lines_and_text_grow_with_the_picture() -> None:
    styles = [Style.of(hw) for hw in SIZES]
    for smaller, larger in pairwise(styles):
        assert smaller.line_px <= larger.line_px
        assert smaller.text_scale < larger.text_scale
    assert styles[0].line_px < styles[-1].line_px


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
def test_text_contrasts_with_its_background(matrix: nv12.Matrix) -> None:
    """Both as a player shows them: text has the chroma of the label, so black on red is dark red.

    WCAG asks for 3 of large text and 4.5 (AA) of small; only the two reds stay below that.
    """
    ratios = []
    colours = luma_palette(PALETTE, matrix), luma_palette(TEXT_PALETTE, matrix)
    chroma = chroma_palette(PALETTE, matrix)
    for index in range(len(PALETTE.colors)):
        shown = []
        for palette in colours:
            picture = black((2, 2))
            nv12.luma(picture)[...] = palette.by_idx(index).b
            nv12.chroma(picture)[...] = chroma.by_idx(index).as_bgr()[:2]
            shown.append(_luminance(tuple(bgr_of(picture, matrix)[0, 0, ::-1])))
        light, dark = max(shown), min(shown)
        ratios.append((light + 0.05) / (dark + 0.05))
    assert min(ratios) > 3.5
    assert sum(ratio < 4.5 for ratio in ratios) <= 2


def _luminance(rgb: tuple[float, ...]) -> float:
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (channel / 255 for channel in rgb)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
