# SPDX-License-Identifier: Apache-2.0
"""Sound in a written MP4: present, in place, and no longer than the pictures."""

from collections.abc import Generator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pipeline.sinks.audio import _copied
from pipeline.sinks.mp4 import Mp4Writer
from tests.pipeline.pictures import nv12_of
from tests.pipeline.sinks.videos import decode, smooth_picture, sound, write_sound

FRAME_NS = 40_000_000


def write(path: Path, audio_from: Path, *, num_frames: int, first_ns: int = 0) -> Path:
    writer = Mp4Writer(
        path, picture_hw=(120, 160), matrix="bt709", frame_rate=Fraction(25), audio_from=audio_from
    )
    for index in range(num_frames):
        picture = smooth_picture(index, width=160, height=120)
        writer.write(nv12_of(picture), first_ns + index * FRAME_NS)
    writer.finish()
    return path


def onset_s(samples: np.ndarray) -> float:
    """Time at which the tone begins."""
    return float(np.argmax(np.abs(samples) > 0.1)) / 48_000


@pytest.mark.parametrize(
    ("name", "codec", "expected"),
    [
        ("a.m4a", "aac", "aac"),
        ("a.ts", "aac", "aac"),
        ("a.mp3", "libmp3lame", "mp3float"),
        ("a.ts", "ac3", "ac3"),
        ("a.mkv", "eac3", "eac3"),
        ("a.flac", "flac", "flac"),
        ("a.mkv", "libopus", "opus"),
        ("a.wav", "pcm_s16le", "aac"),
        ("a.wav", "pcm_alaw", "aac"),
    ],
)
def test_sound_is_kept_and_in_place(tmp_path: Path, name: str, codec: str, expected: str) -> None:
    source = write_sound(tmp_path / name, codec)
    with av.open(str(source)) as container:  # MPEG-TS starts later than 0
        first_ns = round(
            (container.streams.audio[0].start_time or 0)
            * container.streams.audio[0].time_base
            * 1_000_000_000
        )
    path = write(tmp_path / "out.mp4", source, num_frames=50, first_ns=max(0, first_ns))
    found, samples = sound(path)
    assert found == expected
    assert onset_s(samples) == pytest.approx(1.0, abs=0.03)
    assert len(samples) / 48_000 == pytest.approx(2.0, abs=0.08)


def test_mp3_of_a_low_rate_is_kept(tmp_path: Path) -> None:
    source = write_sound(tmp_path / "a.mp3", "libmp3lame", rate=8000)
    assert sound(write(tmp_path / "out.mp4", source, num_frames=50))[0] == "mp3float"


def test_sound_is_cut_where_the_pictures_end(tmp_path: Path) -> None:
    source = write_sound(tmp_path / "a.m4a", "aac", duration_s=6)
    path = write(tmp_path / "out.mp4", source, num_frames=50)
    _, samples = sound(path)
    assert 1.9 < len(samples) / 48_000 <= 2.0
    assert decode(path).duration_s == pytest.approx(2.0, abs=0.01)


def test_sound_that_ends_early_leaves_all_pictures(tmp_path: Path) -> None:
    source = write_sound(tmp_path / "a.m4a", "aac", duration_s=0.5, click_s=0)
    path = write(tmp_path / "out.mp4", source, num_frames=100)
    written = decode(path)
    assert len(written.pts_s) == 100
    assert written.duration_s == pytest.approx(4.0, abs=0.01)


def test_sound_keeps_its_place_when_the_pictures_start_late(tmp_path: Path) -> None:
    source = write_sound(tmp_path / "a.m4a", "aac", duration_s=3)
    path = write(tmp_path / "out.mp4", source, num_frames=50, first_ns=600_000_000)
    assert decode(path).pts_s[0] == 0
    assert onset_s(sound(path)[1]) == pytest.approx(0.4, abs=0.03)


def test_an_unfinished_file_has_sound_too(tmp_path: Path) -> None:
    source = write_sound(tmp_path / "a.m4a", "aac", duration_s=6)
    writer = Mp4Writer(
        tmp_path / "out.mp4",
        picture_hw=(120, 160),
        matrix="bt709",
        frame_rate=Fraction(25),
        audio_from=source,
    )
    for index in range(120):
        writer.write(nv12_of(smooth_picture(index, width=160, height=120)), index * FRAME_NS)
    unfinished = tmp_path / "copy.mp4"
    unfinished.write_bytes((tmp_path / "out.mp4.partial").read_bytes())
    writer.abandon()
    assert len(decode(unfinished).pts_s) >= 50
    assert len(sound(unfinished)[1]) / 48_000 > 1.5


def test_a_source_without_sound_gives_none(tmp_path: Path) -> None:
    silent = write_silent(tmp_path / "silent.mp4")
    path = write(tmp_path / "out.mp4", silent, num_frames=10)
    with av.open(str(path)) as container:
        assert not container.streams.audio


def write_silent(path: Path) -> Path:
    writer = Mp4Writer(path, picture_hw=(120, 160), matrix="bt709", frame_rate=Fraction(25))
    writer.write(nv12_of(smooth_picture(width=160, height=120)), 0)
    writer.finish()
    return path


def test_sound_that_cannot_be_read_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "out.mp4", tmp_path / "gone.mp4", num_frames=10)
    assert len(decode(path).pts_s) == 10
    assert "gone.mp4: sound is left out: No such file" in caplog.text


def test_damaged_sound_of_a_transport_stream_leaves_all_pictures(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The header of each packet of its AAC must be read, and these are not there."""
    source = write_sound(tmp_path / "a.ts", "aac", duration_s=4, click_s=0)
    whole = source.read_bytes()
    middle = whole.index(b"\xff\xf1", len(whole) // 2)
    source.write_bytes(whole[:middle] + bytes(2000) + whole[middle + 2000 :])
    path = write(tmp_path / "out.mp4", source, num_frames=150)
    assert len(decode(path).pts_s) == 150
    assert 2.0 < len(sound(path)[1]) / 48_000 < 6.0
    assert "a.ts: sound has gaps" in caplog.text


def test_streams_that_appear_on_the_way_leave_all_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyAV stumbles over them at the end."""

    def stumbling(*arguments: Any) -> Generator[Any, None, None]:
        yield from _copied(*arguments)
        raise IndexError

    monkeypatch.setattr("pipeline.sinks.audio._copied", stumbling)
    source = write_sound(tmp_path / "a.m4a", "aac")
    path = write(tmp_path / "out.mp4", source, num_frames=100)
    assert len(decode(path).pts_s) == 100
    assert len(sound(path)[1]) / 48_000 > 1.5


def test_sound_that_breaks_off_leaves_all_pictures(tmp_path: Path) -> None:
    source = write_sound(tmp_path / "a.mkv", "aac", duration_s=4, click_s=0)
    whole = source.read_bytes()
    source.write_bytes(whole[: len(whole) // 2])
    path = write(tmp_path / "out.mp4", source, num_frames=100)
    assert len(decode(path).pts_s) == 100
    assert 1.0 < len(sound(path)[1]) / 48_000 < 3.0
