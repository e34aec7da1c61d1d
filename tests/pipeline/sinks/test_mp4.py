# SPDX-License-Identifier: Apache-2.0
"""The MP4 writer: times, sizes, colours, and what is left when things go wrong."""

import resource
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.errors import SinkError
from pipeline.nv12 import Matrix
from pipeline.sinks.mp4 import Mp4Writer
from tests.pipeline.pictures import bgr_of, nv12_of
from tests.pipeline.sinks.videos import decode, psnr, smooth_picture

MS = 1_000_000


def write(
    path: Path,
    pts_ns: Iterable[int],
    *,
    width: int = 320,
    height: int = 240,
    rate: int = 25,
    matrix: Matrix = "bt709",
) -> Path:
    writer = Mp4Writer(path, picture_hw=(height, width), matrix=matrix, frame_rate=Fraction(rate))
    for index, at_ns in enumerate(pts_ns):
        writer.write(nv12_of(smooth_picture(index, width=width, height=height), matrix), at_ns)
    writer.finish()
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fill(writer: Mp4Writer, num_frames: int) -> None:
    for index in range(num_frames):
        writer.write(nv12_of(smooth_picture(index)), index * 40 * MS)


def test_every_picture_comes_back_at_its_time(tmp_path: Path) -> None:
    written = decode(write(tmp_path / "a.mp4", [index * 40 * MS for index in range(130)]))
    assert written.pts_s == pytest.approx([index * 0.04 for index in range(130)], abs=1e-5)
    assert (written.width, written.height) == (320, 240)


def test_duration_counts_the_last_picture(tmp_path: Path) -> None:
    written = decode(write(tmp_path / "a.mp4", [index * 40 * MS for index in range(60)]))
    assert written.duration_s == pytest.approx(2.4, abs=1e-3)


def test_ntsc_times_do_not_drift(tmp_path: Path) -> None:
    pts_ns = [index * 1001 * 1_000_000_000 // 30_000 for index in range(300)]
    written = decode(write(tmp_path / "a.mp4", pts_ns, rate=30))
    assert written.pts_s == pytest.approx([at_ns / 1e9 for at_ns in pts_ns], abs=1e-5)


def test_a_variable_frame_rate_is_kept(tmp_path: Path) -> None:
    pts_ns = [int(at_ms * MS) for at_ms in (0, 40, 41, 100, 700, 705.5, 3000, 3040, 5200, 5201)]
    written = decode(write(tmp_path / "a.mp4", pts_ns))
    assert written.pts_s == pytest.approx([at_ns / 1e9 for at_ns in pts_ns], abs=1e-5)


@pytest.mark.parametrize("first_s", [0.08, 1.4, 95_443.7, -2.0])
def test_the_first_picture_is_at_zero(tmp_path: Path, first_s: float) -> None:
    pts_ns = [int(first_s * 1e9) + index * 40 * MS for index in range(10)]
    written = decode(write(tmp_path / "a.mp4", pts_ns))
    assert written.pts_s == pytest.approx([index * 0.04 for index in range(10)], abs=2e-5)


def test_equal_times_are_set_apart_by_a_tick(tmp_path: Path) -> None:
    written = decode(write(tmp_path / "a.mp4", [0, 40 * MS, 40 * MS, 30 * MS, 80 * MS]))
    assert len(written.pts_s) == 5
    assert written.pts_s == sorted(set(written.pts_s))
    assert written.pts_s[-1] == pytest.approx(0.08, abs=1e-5)


def test_a_clock_that_starts_again_goes_on_one_frame_later(tmp_path: Path) -> None:
    pts_ns = [*(index * 40 * MS for index in range(50)), *(index * 40 * MS for index in range(50))]
    written = decode(write(tmp_path / "a.mp4", pts_ns))
    assert written.pts_s == pytest.approx([index * 0.04 for index in range(100)], abs=2e-5)


def test_a_file_of_one_picture_lasts_one_frame(tmp_path: Path) -> None:
    written = decode(write(tmp_path / "a.mp4", [7 * MS]))
    assert written.pts_s == [0.0]
    assert written.duration_s == pytest.approx(0.04, abs=1e-3)


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize(("width", "height"), [(320, 240), (1280, 720), (321, 240), (641, 359)])
def test_colours_come_back(tmp_path: Path, width: int, height: int, matrix: Matrix) -> None:
    path = write(
        tmp_path / "a.mp4", [0, 40 * MS, 80 * MS], width=width, height=height, matrix=matrix
    )
    written = decode(path)
    assert (written.width, written.height) == (width + width % 2, height + height % 2)
    for index, picture in enumerate(written.pictures):
        expected = smooth_picture(index, width=width, height=height)
        assert psnr(picture[:height, :width], expected) > 35


def test_an_odd_size_grows_by_a_copy_of_the_last_row_and_column(tmp_path: Path) -> None:
    picture = decode(write(tmp_path / "a.mp4", [0], width=65, height=35)).pictures[0].astype(int)
    assert np.abs(picture[:, 65] - picture[:, 64]).mean() < 3
    assert np.abs(picture[35] - picture[34]).mean() < 3


@pytest.mark.parametrize(("matrix", "number"), [("bt601", 6), ("bt709", 1)])
def test_the_file_says_what_its_colours_went_through(
    tmp_path: Path, matrix: Matrix, number: int
) -> None:
    path = write(tmp_path / "a.mp4", [0, 40 * MS], matrix=matrix)
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc) == (number,) * 3
        assert context.color_range == 1  # limited
        assert context.pix_fmt == "yuv420p"


def test_a_picture_may_change_once_it_is_written(tmp_path: Path) -> None:
    """The encoder reads it where it lies, and keeps nothing of it."""
    pictures = [nv12_of(smooth_picture(index)) for index in range(20)]
    for name, spoiled in (("a.mp4", False), ("b.mp4", True)):
        writer = Mp4Writer(
            tmp_path / name, picture_hw=(240, 320), matrix="bt709", frame_rate=Fraction(25)
        )
        for index, picture in enumerate(pictures):
            lent = picture.copy()
            writer.write(lent, index * 40 * MS)
            lent[...] = 128 * (not spoiled) + 255 * spoiled
        writer.finish()
    kept, changed = (decode(tmp_path / name).pictures for name in ("a.mp4", "b.mp4"))
    np.testing.assert_array_equal(kept, changed)
    assert psnr(changed[10], smooth_picture(10)) > 35


@pytest.mark.parametrize(
    ("hw", "bars", "inside"),
    [
        ((100, 400), [np.s_[:76], np.s_[164:]], np.s_[84:156, 4:-4]),
        ((400, 100), [np.s_[:, :126], np.s_[:, 194:]], np.s_[4:-4, 134:186]),
        ((101, 399), [np.s_[:76], np.s_[164:]], np.s_[84:156, 4:-4]),
        ((60, 80), [], np.s_[4:-4, 4:-4]),
    ],
)
def test_a_picture_of_another_size_is_fitted_in_between_bars(
    tmp_path: Path, hw: tuple[int, int], bars: list[tuple[slice, ...]], inside: tuple[slice, ...]
) -> None:
    colour = np.uint8([40, 90, 200])
    writer = Mp4Writer(
        tmp_path / "a.mp4", picture_hw=(240, 320), matrix="bt709", frame_rate=Fraction(25)
    )
    writer.write(nv12_of(smooth_picture()), 0)
    writer.write(nv12_of(np.broadcast_to(colour, (*hw, 3))), 40 * MS)
    writer.finish()
    fitted = decode(tmp_path / "a.mp4").pictures[1]
    assert fitted.shape == (240, 320, 3)
    for bar in bars:
        assert fitted[bar].mean() < 5
    assert np.abs(fitted[inside] - colour.astype(int)).mean() < 5


def test_a_finished_file_seeks(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", [index * 40 * MS for index in range(300)])
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.frames == 300
        container.seek(round(8.0 / stream.time_base), stream=stream)
        assert 5.9 < next(container.decode(stream)).time <= 8.0


def test_the_final_name_appears_only_at_the_end(tmp_path: Path) -> None:
    writer = Mp4Writer(
        tmp_path / "a.mp4", picture_hw=(240, 320), matrix="bt709", frame_rate=Fraction(25)
    )
    writer.write(nv12_of(smooth_picture()), 0)
    assert names(tmp_path) == ["a.mp4.partial"]
    writer.finish()
    assert names(tmp_path) == ["a.mp4"]


def test_an_abandoned_file_plays_under_its_temporary_name(tmp_path: Path) -> None:
    writer = Mp4Writer(
        tmp_path / "a.mp4", picture_hw=(240, 320), matrix="bt709", frame_rate=Fraction(25)
    )
    fill(writer, 30)
    writer.abandon()
    assert names(tmp_path) == ["a.mp4.partial"]
    assert len(decode(tmp_path / "a.mp4.partial").pts_s) == 30


def test_a_killed_process_leaves_a_file_that_plays(tmp_path: Path) -> None:
    program = """
        import os, signal, sys
        from fractions import Fraction
        from pathlib import Path
        from pipeline.sinks.mp4 import Mp4Writer
        from tests.pipeline.pictures import nv12_of
        from tests.pipeline.sinks.videos import smooth_picture
        writer = Mp4Writer(
            Path(sys.argv[1]), picture_hw=(240, 320), matrix="bt709", frame_rate=Fraction(25)
        )
        for index in range(260):
            writer.write(nv12_of(smooth_picture(index)), 1_000_000_000 + index * 40_000_000)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "a.mp4")]
    assert subprocess.run(command, check=False).returncode == -9
    written = decode(tmp_path / "a.mp4.partial")
    assert len(written.pts_s) >= 200  # 10.4 s less an open fragment of 2 s
    assert written.pts_s == pytest.approx(
        [index * 0.04 for index in range(len(written.pts_s))], abs=2e-5
    )
    assert psnr(written.pictures[100], smooth_picture(100)) > 35


@pytest.mark.parametrize("end", ["finish", "abandon"])
def test_without_pictures_nothing_breaks(tmp_path: Path, end: str) -> None:
    writer = Mp4Writer(
        tmp_path / "a.mp4", picture_hw=(240, 320), matrix="bt709", frame_rate=Fraction(25)
    )
    getattr(writer, end)()
    assert not (tmp_path / "a.mp4").exists()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "a.mp4"
    with pytest.raises(SinkError, match=r"gone/a\.mp4: cannot be written: no such file.*folder"):
        Mp4Writer(path, picture_hw=(240, 320), matrix="bt709", frame_rate=Fraction(25))


def test_a_folder_removed_meanwhile_is_noticed_within_a_fragment(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / "a.mp4"
    writer = Mp4Writer(path, picture_hw=(240, 320), matrix="bt709", frame_rate=Fraction(25))
    fill(writer, 60)
    shutil.rmtree(tmp_path / "folder")
    with pytest.raises(SinkError, match=r"a\.mp4: cannot be written: no such file.*keep it"):
        fill(writer, 120)
    writer.abandon()


def test_a_full_disk_is_one_line_and_can_be_abandoned(tmp_path: Path) -> None:
    (tmp_path / "a.mp4.partial").symlink_to("/dev/full")
    writer = Mp4Writer(
        tmp_path / "a.mp4", picture_hw=(240, 320), matrix="bt709", frame_rate=Fraction(25)
    )
    with pytest.raises(SinkError) as raised:
        fill(writer, 200)
    assert "a.mp4: cannot be written: no space left on device; free some" in str(raised.value)
    assert "\n" not in str(raised.value)
    writer.abandon()


def test_a_disk_that_fills_later_leaves_what_fitted(tmp_path: Path) -> None:
    writer = Mp4Writer(
        tmp_path / "a.mp4", picture_hw=(240, 320), matrix="bt709", frame_rate=Fraction(25)
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, hard))
    try:
        with pytest.raises(SinkError, match="file too large"):
            fill(writer, 1000)
        with pytest.raises(SinkError, match="incomplete"):
            writer.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == ["a.mp4.partial"]
    assert len(decode(tmp_path / "a.mp4.partial", may_break_off=True).pts_s) >= 50


def test_a_disk_that_fills_at_the_end_fails_the_finish(tmp_path: Path) -> None:
    (tmp_path / "a.mp4.partial").symlink_to("/dev/full")
    writer = Mp4Writer(
        tmp_path / "a.mp4", picture_hw=(240, 320), matrix="bt709", frame_rate=Fraction(25)
    )
    writer.write(nv12_of(smooth_picture()), 0)
    with pytest.raises(SinkError, match="no space left"):
        writer.finish()
    assert not (tmp_path / "a.mp4").exists()


@pytest.mark.parametrize(("width", "height", "rate"), [(0, 240, 25), (320, 240, 0)])
def test_impossible_videos_are_refused(tmp_path: Path, width: int, height: int, rate: int) -> None:
    with pytest.raises(ValueError, match=r"at least 1 x 1 px|frame_rate must be positive"):
        Mp4Writer(
            tmp_path / "a.mp4",
            picture_hw=(height, width),
            matrix="bt709",
            frame_rate=Fraction(rate),
        )


def test_a_real_clip_keeps_its_frames_and_times(tmp_path: Path, data: Path) -> None:
    with av.open(str(data / "clips" / "night-street-426x240.mp4")) as clip:
        stream = clip.streams.video[0]
        writer = Mp4Writer(
            tmp_path / "a.mp4",
            picture_hw=(stream.height, stream.width),
            matrix="bt601",
            frame_rate=stream.average_rate,
        )
        times, last = [], np.empty(0)
        for frame in clip.decode(stream):
            times.append(float(frame.time))
            last = frame.to_ndarray(format="nv12")
            writer.write(last, round(frame.pts * frame.time_base * 1_000_000_000))
        writer.finish()
    written = decode(tmp_path / "a.mp4")
    assert written.pts_s == pytest.approx(times, abs=1e-4)
    assert psnr(written.pictures[-1], bgr_of(last, "bt601")) > 30
