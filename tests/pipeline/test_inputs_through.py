# SPDX-License-Identifier: Apache-2.0
"""Every kind of input that people have, through the whole pipeline."""

import contextlib
import gc
import re
import shutil
import threading
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from PIL import Image

from model.config import ModelConfig
from model.merging import suppress_looks
from pipeline.config import OutputConfig, PipelineConfig
from pipeline.job import Job
from tests.pipeline.media_factory import remuxed, spliced, turned, write_sound, write_video
from tests.pipeline.scenes import (
    Once,
    build_squares,
    count_frames,
    make_card_file,
    make_scene,
    read_jsonl,
)

NUM_FRAMES = 12
SQUARE = (40, 30, 70, 60)  # left, top, right, bottom in the first picture; it moves to the right


def square_picture(index: int, *, width: int = 320, height: int = 192) -> np.ndarray:
    picture = np.full((height, width, 3), 20, np.uint8)
    left, top, right, bottom = SQUARE
    picture[top:bottom, left + 3 * index : right + 3 * index] = 250
    return picture


def sized(width: int, height: int) -> Callable[[int], np.ndarray]:
    return lambda index: square_picture(index, width=width, height=height)


def resting(width: int, height: int) -> Callable[[int], np.ndarray]:
    return lambda _: square_picture(0, width=width, height=height)


def write_clip(path: Path, codec: str = "libx264", **settings: Any) -> Path:
    """Twelve pictures of a square that moves."""
    defaults = {"num_frames": NUM_FRAMES, "picture": square_picture, "b_frames": 0}
    return write_video(path, codec, **(defaults | settings))


class Ran:
    """A job that has run, and what it left."""

    def __init__(self, folder: Path, *sources: Path, save_video: bool, **settings: Any) -> None:
        self.out = folder / "out"
        config = PipelineConfig(
            model=ModelConfig(weights=make_card_file(folder / "card"), image_size=160),
            output=OutputConfig(directory=self.out, save_video=save_video),
            **settings,
        )
        self.job = Job(config, [str(source) for source in sources])

    def start(self, on_tick: Callable[[], None] = lambda: None) -> "Ran":
        self.job.run(on_tick)
        assert not any(state.trace for state in self.job.streams)
        for state in self.job.streams:
            assert self.job.counters[state.source.name].num_in_flight == 0
            assert len(state.reason.splitlines()) <= 1
        return self

    @property
    def reason(self) -> str:
        return self.job.streams[0].fault

    @property
    def lines(self) -> list[dict[str, Any]]:
        return read_jsonl(self.out / f"{self.job.streams[0].source.name}.jsonl")

    @property
    def first_box(self) -> list[float]:
        return self.lines[0]["objects"][0]["xyxy"]

    @property
    def ids(self) -> set[int]:
        return {object_["id"] for line in self.lines for object_ in line["objects"]}

    @property
    def video(self) -> Path:
        return self.out / f"{self.job.streams[0].source.name}.mp4"


Run = Callable[..., Ran]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr("pipeline.job.build_engine", build_squares)

    def run_(*sources: Path, save_video: bool = False, **settings: Any) -> Ran:
        return Ran(tmp_path, *sources, save_video=save_video, **settings).start()

    return run_


def assert_tracked_through(ran: Ran, num_frames: int = NUM_FRAMES) -> None:
    """Every frame is there, at a later time than the one before, with one and the same square."""
    assert ran.job.complete, ran.reason
    assert [line["frame"] for line in ran.lines] == list(range(1, num_frames + 1))
    assert all(before["pts_s"] < line["pts_s"] for before, line in pairwise(ran.lines))
    assert ran.ids == {1}
    assert ran.first_box == pytest.approx(SQUARE, abs=3)


def interlaced(stream: VideoStream) -> None:
    stream.options = {"x264-params": "tff=1"}


# fmt: off
KINDS = [
    # name            file         settings
    ("10-bit",        "a.mp4",     {"pixel_format": "yuv420p10le"}),
    ("4:2:2",         "a.mp4",     {"pixel_format": "yuv422p"}),
    ("4:2:2-10-bit",  "a.mov",     {"codec": "prores_ks", "pixel_format": "yuv422p10le"}),
    ("4:4:4",         "a.mkv",     {"pixel_format": "yuv444p"}),
    ("grey",          "a.mkv",     {"codec": "ffv1", "pixel_format": "gray"}),
    ("641x359",       "a.mp4",     {"codec": "mpeg4", "picture": sized(641, 359)}),
    ("641x359-h264",  "a.mp4",     {"pixel_format": "yuv444p", "picture": sized(641, 359)}),
    ("one-frame",     "a.mp4",     {"num_frames": 1}),
    ("one-frame-ts",  "a.ts",      {"num_frames": 1}),
    ("one-frame-raw", "a.h264",    {"num_frames": 1}),
    ("no-times",      "a.h264",    {"b_frames": 2}),
    ("no-times-hevc", "a.hevc",    {"codec": "libx265",
                                    "options": {"x265-params": "log-level=none"}}),
    ("avi-b-frames",  "a.avi",     {"b_frames": 2}),
    ("avi-mpeg4",     "a.avi",     {"codec": "mpeg4", "b_frames": 2}),
    ("interlaced",    "a.mp4",     {"prepare": interlaced}),
]
# fmt: on


@pytest.mark.parametrize(
    ("file", "settings"), [row[1:] for row in KINDS], ids=[row[0] for row in KINDS]
)
def test_every_kind_of_video_is_tracked_frame_by_frame(
    tmp_path: Path, run: Run, file: str, settings: dict[str, Any]
) -> None:
    codec = settings.get("codec", "libx264")
    if codec not in av.codecs_available:
        pytest.skip(f"no encoder {codec}")
    ran = run(write_clip(tmp_path / file, **settings), save_video=True)
    num_frames = settings.get("num_frames", NUM_FRAMES)
    assert_tracked_through(ran, num_frames)
    assert count_frames(ran.video) == num_frames


def test_an_odd_size_gives_a_video_one_pixel_larger(tmp_path: Path, run: Run) -> None:
    ran = run(write_clip(tmp_path / "a.mp4", "mpeg4", picture=sized(641, 359)), save_video=True)
    assert size_of(ran.video) == (642, 360)


def test_a_variable_frame_rate_keeps_the_time_of_every_frame(tmp_path: Path, run: Run) -> None:
    ticks = [0, 1, 2, 9, 10, 11, 24, 25, 26, 27, 60, 61]
    ran = run(write_clip(tmp_path / "a.mp4", pts=ticks.__getitem__), save_video=True)
    expected = [tick / 25 for tick in ticks]
    assert [line["pts_s"] for line in ran.lines] == pytest.approx(expected)
    with av.open(str(ran.video)) as container:
        times = [float(frame.time) for frame in container.decode(video=0)]
    assert times == pytest.approx(expected, abs=1e-4)
    assert ran.job.complete


@pytest.mark.parametrize(
    ("degrees", "box"),
    [(90, (192 - 60, 40, 192 - 30, 70)), (180, (250, 132, 280, 162)), (270, (30, 250, 60, 280))],
)
def test_boxes_and_pictures_of_a_turned_phone_are_upright(
    tmp_path: Path, run: Run, degrees: int, box: tuple[int, ...]
) -> None:
    ran = run(turned(write_clip(tmp_path / "a.mp4"), degrees), save_video=True)
    assert ran.job.complete
    assert ran.first_box == pytest.approx(box, abs=3)
    assert size_of(ran.video) == ((320, 192) if degrees == 180 else (192, 320))
    with av.open(str(ran.video)) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    left, top, right, bottom = box
    assert picture[top + 8 : bottom - 8, left + 8 : right - 8].mean() > 180


def size_of(path: Path) -> tuple[int, int]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.width, stream.height


@pytest.mark.parametrize("suffix", [".h264", ".ts", ".mkv"])
def test_a_size_that_changes_on_the_way_keeps_boxes_in_place_and_the_size_of_the_video(
    tmp_path: Path, run: Run, suffix: str
) -> None:
    """From landscape to portrait and back."""
    raw = ".h264" if suffix == ".mkv" else suffix
    wide = write_clip(tmp_path / f"wide{raw}", picture=resting(320, 192))
    high = write_clip(tmp_path / f"high{raw}", picture=resting(144, 240))
    clip = spliced(tmp_path / f"both{raw}", wide, high, wide)
    if suffix != raw:
        clip = remuxed(clip, tmp_path / f"both{suffix}")
    ran = run(clip, save_video=True)
    assert ran.job.complete, ran.reason
    boxes = [line["objects"][0]["xyxy"] for line in ran.lines]
    assert len(boxes) == 3 * NUM_FRAMES
    for box in boxes:
        assert box == pytest.approx(SQUARE, abs=3)
    assert size_of(ran.video) == (320, 192)
    assert count_frames(ran.video) == 3 * NUM_FRAMES


def test_a_stream_of_many_sizes_needs_two_engines(tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "shots"
    folder.mkdir()
    for number, size in enumerate([(320, 180), (180, 320), (600, 90), (200, 200), (320, 180)]):
        Image.fromarray(square_picture(0, width=size[0], height=size[1])).save(
            folder / f"{number}.png"
        )
    ran = run(folder)
    assert [engine.input_shape for engine in ran.job.supervisor.engines] == [
        (1, 96, 160, 3),
        (1, 160, 160, 3),
    ]
    for line in ran.lines:
        assert line["objects"][0]["xyxy"] == pytest.approx(SQUARE, abs=4)
    assert ran.job.complete


def test_a_thousand_images_leave_nothing_behind(tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "shots"
    folder.mkdir()
    Image.fromarray(square_picture(0)).save(folder / "0.png")
    for number in range(1, 1000):
        (folder / f"{number}.png").hardlink_to(folder / "0.png")
    threads, descriptors = threading.active_count(), num_descriptors()
    ran = run(folder)
    assert_tracked_through(ran, 1000)
    gc.collect()  # a job's counters are part of a cycle
    assert threading.active_count() == threads
    assert num_descriptors() <= descriptors + 2


def num_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_of_long_files_side_by_side_the_broken_one_alone_is_incomplete(
    tmp_path: Path, run: Run
) -> None:
    clips = [make_scene(tmp_path / f"{number}.mp4", num_frames=300) for number in range(4)]
    content = bytearray(clips[2].read_bytes())
    middle = len(content) // 2
    content[middle : middle + 600] = bytes(600)
    clips[2].write_bytes(content)
    job = run(*clips, parallel=4).job
    assert [state.complete for state in job.streams] == [True, True, False, True]
    assert [job.counters[str(number)]["tracked"] for number in (0, 1, 3)] == [300] * 3
    assert 200 < job.counters["2"]["tracked"] < 300
    assert "packets could not be decoded; the first is number 1" in job.streams[2].reason


def test_sound_alone_is_refused_with_one_line(tmp_path: Path, run: Run) -> None:
    assert (
        "song.m4a: no video stream in it, only audio"
        in run(write_sound(tmp_path / "song.m4a", "aac"), save_video=True).reason
    )


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_a_matroska_file_that_is_cut_off_is_kept_to_there_and_named(
    tmp_path: Path, run: Run, suffix: str
) -> None:
    codec = "libx264" if suffix == ".mkv" else "libvpx"
    clip = write_clip(tmp_path / f"a{suffix}", codec, num_frames=50)
    assert run(clip).job.complete
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    shutil.rmtree(tmp_path / "out")
    ran = run(clip)
    assert re.search(rf"a{suffix}: ends at \d\.\d\d s of the 2\.00 s it declares", ran.reason)
    assert 10 < len(ran.lines) < 50


@pytest.mark.parametrize("name", ["a.mot.txt", "a.jsonl", "a.mp4"])
def test_a_disk_that_is_full_ends_its_stream_with_one_line_and_no_other(
    tmp_path: Path, run: Run, name: str
) -> None:
    clips = [write_clip(tmp_path / f"{stem}.mp4") for stem in "ab"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f"{name}.partial").symlink_to("/dev/full")
    ran = run(*clips, save_video=True)
    assert [state.complete for state in ran.job.streams] == [False, True]
    assert f"{name}: cannot be written: no space left on device; free some" in ran.reason
    assert not (tmp_path / "out" / name).exists()


def test_an_output_folder_that_is_removed_in_the_middle_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.job.build_engine", build_squares)
    ran = Ran(tmp_path, make_scene(tmp_path / "a.mp4", num_frames=2000), save_video=True)

    def take_away() -> None:
        while ran.out.exists():  # a file may be opened in it meanwhile
            shutil.rmtree(ran.out, ignore_errors=True)

    remove = Once(take_away)
    ran.start(lambda: remove() if ran.job.counters["a"]["tracked"] > 5 else None)
    assert not ran.job.complete
    assert re.search(r"out/a\.(mp4|jsonl|mot\.txt): cannot be written: no such file", ran.reason)
    assert "keep it while the run lasts" in ran.reason
    assert "summary.json: cannot be written" in ran.job.fault
    assert ran.job.counters["a"]["tracked"] < 2000  # noticed on the way, not at the end
    assert not ran.out.exists()


def narrow_pixels(stream: VideoStream) -> None:
    stream.codec_context.sample_aspect_ratio = Fraction(2, 1)


def test_a_picture_of_oblong_pixels_is_looked_at_as_it_is_shown(tmp_path: Path, run: Run) -> None:
    clip = write_clip(tmp_path / "a.mkv", picture=sized(160, 192), prepare=narrow_pixels)
    ran = run(clip, save_video=True)
    left, top, right, bottom = SQUARE
    assert ran.first_box == pytest.approx((2 * left, top, 2 * right, bottom), abs=3)
    assert ran.job.supervisor.engines[0].input_shape == (1, 96, 160, 3)
    assert size_of(ran.video) == (320, 192)


def test_pictures_of_another_size_begin_with_new_identities(tmp_path: Path, run: Run) -> None:
    clips = [write_clip(tmp_path / f"{n}.h264", picture=sized(320 + 64 * n, 192)) for n in (0, 1)]
    ran = run(spliced(tmp_path / "both.h264", *clips))
    ids = [line["objects"][0]["id"] for line in ran.lines]
    assert ids == [1] * NUM_FRAMES + [2] * NUM_FRAMES


def test_a_folder_of_photographs_of_many_sizes_keeps_few_of_them_in_memory(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 0

    def watched(*arguments: Any, **options: Any) -> Any:
        nonlocal most
        most = max(most, sum("sightline" in name for name in open_files()))
        return suppress_looks(*arguments, **options)

    monkeypatch.setattr("pipeline.stages.suppress.suppress_looks", watched)
    folder = tmp_path / "shots"
    folder.mkdir()
    for number in range(40):
        Image.fromarray(square_picture(0, width=300 + number)).save(folder / f"{number}.png")
    assert run(folder, save_video=True).job.complete
    assert 3 <= most <= 20


def open_files() -> list[str]:
    """What the descriptors of this process stand for, pools among them."""
    names = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            names.append(str(descriptor.readlink()))
    return names


def test_frames_that_lack_what_they_refer_to_are_left_out_and_counted(
    tmp_path: Path, run: Run
) -> None:
    """The first keyframe is missing; the second comes 12 frames later."""
    clip = write_clip(tmp_path / "a.h264", num_frames=30)
    units = re.split(rb"(?=\x00\x00\x01)", clip.read_bytes())
    slices = [number for number, unit in enumerate(units) if unit[3:4] == b"\x65"]
    first = [number for number in slices if number < slices[0] + 4]
    kept = (unit for number, unit in enumerate(units) if number not in first)
    clip.write_bytes(b"".join(kept))
    ran = run(clip)
    assert len(ran.lines) == 18
    assert ran.reason == "a: 11 of 29 frames are damaged and were left out"
