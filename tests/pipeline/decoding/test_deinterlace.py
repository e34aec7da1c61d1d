# SPDX-License-Identifier: Apache-2.0
"""Interlaced pictures lose their combs, and nothing else changes."""

from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream

from pipeline.decoding.decoder import DecodedFrame, MediaDecoder
from pipeline.decoding.deinterlace import Deinterlacer
from pipeline.decoding.media import MediaReader
from tests.pipeline.media_factory import (
    NUM_FRAMES,
    RATE,
    decoded_by_pyav,
    message_of,
    source_of,
    spliced,
    write_video,
)

FRAME_NS = 1_000_000_000 // RATE


def woven(index: int, *, width: int = 128, height: int = 96) -> np.ndarray:
    """A bar that moves 6 pixels from one field to the next.

    The lower field is the first one: so x264 takes frames that do not say.
    """
    picture = np.full((height, width, 3), 30, np.uint8)
    for field in (0, 1):
        left = 8 + 6 * (2 * index + 1 - field) % (width - 40)
        picture[field::2, left : left + 24] = 220
    return picture


def interlaced(stream: VideoStream) -> None:
    stream.options = {"x264-params": "tff=1", "crf": "10"}


def decoded(path: Path) -> list[DecodedFrame]:
    reader = MediaReader(source_of(path))
    decoder = MediaDecoder(reader.facts.parameters, live=False)
    frames = []
    for index, raw in enumerate(reader.packets()):
        frames += decoder.decode(message_of(raw, index), memoryview(raw.data))
    frames += decoder.flush()
    reader.close()
    return frames


def combs(frame: av.VideoFrame) -> float:
    """How much more a line differs from its neighbour than from the one after."""
    luma = frame.to_ndarray(format="gray").astype(int)
    return float(np.abs(luma[1:] - luma[:-1]).mean() - np.abs(luma[2:] - luma[:-2]).mean())


@pytest.mark.parametrize("suffix", ["mp4", "ts", "avi"])
def test_combs_are_gone_and_every_frame_keeps_its_time(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"clip.{suffix}", picture=woven, prepare=interlaced)
    with av.open(str(path)) as container:
        assert min(combs(frame) for frame in container.decode(video=0)) > 10
    frames = decoded(path)
    assert max(combs(one.frame) for one in frames) < 1
    assert len(frames) == NUM_FRAMES
    first_ns = frames[0].pts_ns
    assert first_ns is not None
    assert [one.pts_ns for one in frames] == [
        pytest.approx(first_ns + index * FRAME_NS, abs=2) for index in range(NUM_FRAMES)
    ]


def test_the_bar_is_where_its_first_field_has_it(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", picture=woven, prepare=interlaced)
    for index, one in enumerate(decoded(path)[:6]):
        line = one.frame.to_ndarray(format="gray")[48] > 128
        assert np.flatnonzero(line)[0] == pytest.approx(8 + 12 * index, abs=2)


def test_progressive_pictures_are_left_as_they_are(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", picture=woven)
    pictures = [one.frame.to_ndarray().tobytes() for one in decoded(path)]
    assert pictures == [shown.planes[0] for shown in decoded_by_pyav(path)]


def test_colours_keep_their_meaning(tmp_path: Path) -> None:
    def bt709(stream: VideoStream) -> None:
        interlaced(stream)
        stream.codec_context.colorspace = 1
        stream.codec_context.color_range = 2

    path = write_video(tmp_path / "clip.mp4", picture=woven, prepare=bt709)
    for one in decoded(path):
        assert (one.frame.colorspace, one.frame.color_range) == (1, 2)


def test_a_size_that_changes_loses_no_picture(tmp_path: Path) -> None:
    clips = [
        write_video(
            tmp_path / f"{height}.h264",
            picture=lambda index, height=height: woven(index, height=height),
            prepare=interlaced,
            num_frames=6,
        )
        for height in (96, 160)
    ]
    frames = decoded(spliced(tmp_path / "both.h264", *clips))
    assert [one.frame.height for one in frames] == [96] * 6 + [160] * 6


def test_a_picture_too_small_for_the_filter_passes() -> None:
    frame = av.VideoFrame(2, 2, "yuv420p")
    deinterlacer = Deinterlacer()
    assert deinterlacer.push(frame) == [frame]
    assert deinterlacer.flush() == []
