"""Live sources: real RTSP cameras on this machine, and the rules for times and lost packets."""

import logging
import re
import socket
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from trackers.eval import box_iou, compute_identity_metrics

from model.config import ModelConfig
from pipeline.cameras import CameraConfig
from pipeline.config import GateConfig, OutputConfig, PipelineConfig, SourceConfig
from pipeline.decoding.clock import StreamClock
from pipeline.decoding.decoder import MediaDecoder
from pipeline.decoding.inputs import camera_source
from pipeline.job import Job
from pipeline.runner import Supervisor
from pipeline.transport.control import CameraState
from tests.pipeline.cameras import GStreamerCamera, has_gstreamer, make_film
from tests.pipeline.http_camera import HttpCamera, jpegs_of
from tests.pipeline.scenes import (
    build_squares,
    count_frames,
    make_card_file,
    make_scene,
    read_jsonl,
)
from tests.pipeline.small_camera import SmallCamera

Camera = SmallCamera | GStreamerCamera
MakeCamera = Callable[..., Camera]
MakeJob = Callable[..., Job]

KINDS = ("small", pytest.param("gstreamer", marks=pytest.mark.needs_gstreamer))
AS_INSTALLED = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_film(tmp_path_factory.mktemp("film") / "film.mp4")


@pytest.fixture
def make_camera(tmp_path: Path) -> Iterator[MakeCamera]:
    cameras: list[Camera] = []

    def make(kind: str, clip: Path, *, once: bool = False) -> Camera:
        if kind == "small":
            camera: Camera = SmallCamera(clip, once=once)
        elif has_gstreamer():
            camera = GStreamerCamera(clip, tmp_path / f"pictures{len(cameras)}", once=once)
        else:
            pytest.skip("needs GStreamer: apt-get install gir1.2-gst-rtsp-server-1.0")
        cameras.append(camera)
        camera.on()
        return camera

    yield make
    for camera in cameras:
        camera.off()


@pytest.fixture
def make_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeJob:
    monkeypatch.setattr("pipeline.job.build_engine", build_squares)
    weights = make_card_file(tmp_path / "card.safetensors")

    def make(
        *named: str,
        save_video: bool = False,
        window: int = 8,
        gate: GateConfig | None = None,
        **source: object,
    ) -> Job:
        config = PipelineConfig(
            model=ModelConfig(weights=weights, image_size=160),
            source=SourceConfig.model_validate({"open_timeout_s": 2, "timeout_s": 1, **source}),
            output=OutputConfig(directory=tmp_path / "out", save_video=save_video, overwrite=True),
            window=window,
            gate=gate,
        )
        return Job(config, named)

    return make


class Course:
    """Drives a run by conditions: each step happens once the one before it has come true."""

    def __init__(self, job: Job, limit_s: float = 30) -> None:
        self._job = job
        self._steps: list[tuple[Callable[[], bool], Callable[[], object]]] = []
        self._until_s = time.monotonic() + limit_s

    def when(self, condition: Callable[[], bool], action: Callable[[], object]) -> "Course":
        self._steps.append((condition, action))
        return self

    def run(self) -> None:
        """Run the job, which is stopped when every step is done."""
        self.when(lambda: True, self._job.stop)
        self._job.run(self._tick)
        assert not self._steps, "the course was not finished"

    def _tick(self) -> None:
        if time.monotonic() > self._until_s and self._steps:
            self._until_s = float("inf")
            self._job.stop()
        while self._steps and self._until_s != float("inf") and self._steps[0][0]():
            self._steps.pop(0)[1]()


@AS_INSTALLED
def test_a_camera_is_tracked_until_the_limit(
    make_camera: MakeCamera, make_job: MakeJob, film: Path, tmp_path: Path, kind: str
) -> None:
    job = make_job(make_camera(kind, film).address(), save_video=True, limit=40)
    job.run()
    name = job.streams[0].source.name
    counters = job.counters[name]
    assert job.complete
    assert counters["decoded"] == 40
    assert counters["tracked"] + counters.num_dropped == 40
    lines = read_jsonl(tmp_path / f"out/{name}.jsonl")
    assert len(lines) > 20
    times = [line["pts_s"] for line in lines]
    assert times == sorted(set(times))
    assert times[-1] - times[0] == pytest.approx((lines[-1]["frame"] - lines[0]["frame"]) / 25, 0.2)
    assert lines[-1]["objects"][0]["class"] == "square"
    assert count_frames(tmp_path / f"out/{name}.mp4") == len(lines)


@AS_INSTALLED
def test_a_clip_played_once_by_a_camera_gives_the_file_s_tracks(
    make_camera: MakeCamera, make_job: MakeJob, film: Path, tmp_path: Path, kind: str
) -> None:
    make_job(str(film)).run()
    camera = make_camera(kind, film, once=True)
    job = make_job(camera.address(), limit=50, window=64, staleness_s=20)
    job.run()
    name = job.streams[0].source.name
    counters = job.counters[name]
    assert (counters["decoded"], counters["late_packets"]) == (50, 0)
    assert counters["tracked"] >= 47  # the first come before the network says that it is there
    of_file, of_camera = tracks_of(tmp_path, "film"), tracks_of(tmp_path, name)
    first = 50 - counters["tracked"]
    assert renamed(of_camera) == renamed([row for row in of_file if int(row[0]) > first])
    assert len(of_file) == 150


def test_behind_a_camera_s_gate_every_frame_is_accounted_for(
    make_camera: MakeCamera, make_job: MakeJob, tmp_path: Path
) -> None:
    clip = make_scene(tmp_path / "yard.mp4", num_frames=80, bframes=0, halts=range(15, 80))
    camera = make_camera("small", clip)
    job = make_job(camera.address(), save_video=True, limit=70, gate=GateConfig(hold_s=0.2))
    job.run()
    name = job.streams[0].source.name
    counters = job.counters[name]
    assert job.complete
    assert counters["decoded"] == 70
    assert counters["tracked"] + counters["skipped_gate"] + counters.num_dropped == 70
    assert counters["skipped_gate"] > 20
    lines = read_jsonl(tmp_path / f"out/{name}.jsonl")
    predicted = [line for line in lines if line["predicted"]]
    assert len(lines) == 70 - counters.num_dropped
    assert len(predicted) == counters["skipped_gate"]
    assert all(len(line["objects"]) == 1 for line in predicted)


def test_identities_survive_frames_dropped_under_load(
    make_camera: MakeCamera,
    make_job: MakeJob,
    film: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_job(str(film)).run()

    def build_slow(config: object, *, image_hw: tuple[int, int], batch: int = 1) -> object:
        engine = build_squares(config, image_hw=image_hw, batch=batch)
        find = engine.infer
        monkeypatch.setattr(engine, "num_requests", 1)

        def infer(images: np.ndarray) -> np.ndarray:
            time.sleep(0.07)
            return find(images)

        monkeypatch.setattr(engine, "infer", infer)
        return engine

    monkeypatch.setattr("pipeline.job.build_engine", build_slow)
    camera = make_camera("small", film, once=True)
    job = make_job(camera.address(), limit=50, staleness_s=20)
    job.run()
    name = job.streams[0].source.name
    counters = job.counters[name]
    assert 8 <= counters["tracked"] <= 40
    assert counters["dropped_overload"] == 50 - counters["tracked"]
    assert identity_f1(tracks_of(tmp_path, "film"), tracks_of(tmp_path, name)) >= 0.95


def tracks_of(tmp_path: Path, name: str) -> list[list[str]]:
    """The lines of a MOT text as fields."""
    return [line.split(",") for line in (tmp_path / f"out/{name}.mot.txt").read_text().splitlines()]


def renamed(tracks: list[list[str]]) -> list[list[str]]:
    """The lines with identities numbered in order of appearance."""
    names: dict[str, str] = {}
    return [
        [frame, names.setdefault(track_id, str(len(names))), *rest]
        for frame, track_id, *rest in tracks
    ]


def identity_f1(expected: list[list[str]], found: list[list[str]]) -> float:
    """IDF1 over the frames that were tracked."""
    frames = sorted({row[0] for row in found}, key=int)
    columns = [
        [np.array([row[1:6] for row in rows if row[0] == frame], float) for frame in frames]
        for rows in (expected, found)
    ]
    metrics = compute_identity_metrics(
        [truth[:, 0].astype(int) for truth in columns[0]],
        [track[:, 0].astype(int) for track in columns[1]],
        [
            box_iou(truth[:, 1:], track[:, 1:], "xywh")
            for truth, track in zip(*columns, strict=True)
        ],
    )
    return float(metrics["IDF1"])


@AS_INSTALLED
def test_a_camera_that_goes_away_is_followed_again(
    make_camera: MakeCamera, make_job: MakeJob, film: Path, kind: str
) -> None:
    camera = make_camera(kind, film)
    job = make_job(camera.address())
    (state,) = job.streams
    counters = job.counters[state.source.name]
    Course(job).when(lambda: counters["tracked"] > 15, lambda: (camera.off(), camera.on())).when(
        lambda: counters["reconnects"] == 1 and counters["tracked"] > 35, lambda: None
    ).run()
    assert state.complete
    assert counters["reconnects"] == 1
    assert counters.num_in_flight == 0


def test_a_camera_that_freezes_is_opened_again(
    make_camera: MakeCamera, make_job: MakeJob, film: Path
) -> None:
    camera = make_camera("small", film)
    assert isinstance(camera, SmallCamera)
    job = make_job(camera.address(), timeout_s=0.4)
    (state,) = job.streams
    counters = job.counters[state.source.name]

    def freeze() -> None:
        camera.frozen = True

    def thaw() -> None:
        camera.frozen = False

    Course(job).when(lambda: counters["tracked"] > 5, freeze).when(
        lambda: camera.num_clients > 1, thaw
    ).when(lambda: counters["reconnects"] >= 1, lambda: None).run()
    assert state.complete


@pytest.mark.parametrize(
    ("kind", "codec", "height"),
    [
        ("small", "libx264", 288),
        ("small", "mpeg4", 192),
        pytest.param("gstreamer", "mjpeg", 288, marks=pytest.mark.needs_gstreamer),
    ],
)
def test_a_camera_may_come_back_with_another_size_or_codec(
    make_camera: MakeCamera,
    make_job: MakeJob,
    film: Path,
    tmp_path: Path,
    kind: str,
    codec: str,
    height: int,
) -> None:
    changing, steady = make_camera(kind, film), make_camera("small", film)
    other = make_film(tmp_path / "other.mp4", codec, height=height)
    job = make_job(changing.address(), steady.address(), save_video=True)
    counters, beside = (job.counters[state.source.name] for state in job.streams)
    tracked_then, late_then, decoded_then = 0, 0, 0

    def change() -> None:
        nonlocal late_then, decoded_then
        decoded_then = counters["decoded"]
        late_then = beside["late_packets"]  # it was joined between two keyframes
        changing.off()
        changing.show(other)
        changing.on()

    def note() -> None:
        nonlocal tracked_then
        tracked_then = counters["tracked"]

    Course(job).when(lambda: min(counters["tracked"], beside["tracked"]) > 10, change).when(
        lambda: counters["reconnects"] == 1, note
    ).when(lambda: counters["tracked"] > tracked_then + 10, lambda: None).run()
    assert job.complete, [state.reason for state in job.streams]
    assert (beside["reconnects"], beside["undecodable"]) == (0, 0)
    assert beside["late_packets"] == late_then
    lines = read_jsonl(tmp_path / f"out/{job.streams[0].source.name}.jsonl")
    before = {
        thing["id"] for line in lines if line["frame"] < decoded_then for thing in line["objects"]
    }
    after = {thing["id"] for line in lines[-5:] for thing in line["objects"]}
    assert after
    assert before.isdisjoint(after)
    left, top, right, bottom = [line for line in lines if line["objects"]][-1]["objects"][0]["xyxy"]
    assert bottom - top == pytest.approx(height // 5, abs=6)
    assert right - left == pytest.approx(height // 5, abs=6)


def test_garbage_from_a_camera_is_passed_over_and_disturbs_no_other(
    make_camera: MakeCamera, make_job: MakeJob, film: Path
) -> None:
    bad, good = make_camera("small", film), make_camera("small", film)
    assert isinstance(bad, SmallCamera)
    job = make_job(bad.address(), good.address())
    counters, beside = (job.counters[state.source.name] for state in job.streams)
    tracked_then, beside_then = 0, 0

    def garble() -> None:
        nonlocal beside_then
        bad.garbled = True
        beside_then = beside["tracked"]

    def mend() -> None:
        nonlocal tracked_then
        bad.garbled = False
        tracked_then = counters["tracked"]

    Course(job).when(lambda: min(counters["tracked"], beside["tracked"]) > 5, garble).when(
        lambda: beside["tracked"] > beside_then + 20, mend
    ).when(lambda: counters["tracked"] > tracked_then + 15, lambda: None).run()
    assert job.complete, [state.reason for state in job.streams]
    assert counters["decoded"] == counters["tracked"] + counters.num_dropped
    assert (beside["reconnects"], beside["undecodable"], beside["dropped_corrupt"]) == (0, 0, 0)


def test_packets_that_cannot_be_decoded_in_time_are_given_up_to_a_keyframe(
    make_camera: MakeCamera, make_job: MakeJob, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = MediaDecoder.decode
    keyframes: list[bool] = []
    ages_s: list[float] = []
    numbers: list[int] = []

    def decode_slowly(self: MediaDecoder, packet: object, data: memoryview) -> object:
        ages_s.append(time.monotonic() - packet.captured_ns / 1e9)
        time.sleep(0.1)
        numbers.append(packet.pts_ns or 0)
        keyframes.append(packet.keyframe)
        return decode(self, packet, data)

    monkeypatch.setattr(MediaDecoder, "decode", decode_slowly)
    job = make_job(make_camera("small", film).address(), staleness_s=0.3)
    counters = job.counters[job.streams[0].source.name]
    Course(job).when(lambda: counters["late_packets"] > 20, lambda: None).run()
    assert counters["decoded"] == counters["tracked"] + counters.num_dropped
    assert counters["undecodable"] == 0
    assert max(ages_s) < 1.0  # the staleness, and four packets that the decoder has already
    gaps = [after - before > 60_000_000 for before, after in pairwise(numbers)]
    assert any(gaps)
    assert all(key for gap, key in zip(gaps[1:], keyframes[2:], strict=True) if gap)


@pytest.mark.parametrize("state", ["sending", "frozen", "opening", "away"])
def test_a_stop_is_obeyed_at_once_whatever_the_camera_does(
    make_camera: MakeCamera, make_job: MakeJob, film: Path, state: str
) -> None:
    camera = make_camera("small", film)
    assert isinstance(camera, SmallCamera)
    silent = socket.create_server(("127.0.0.1", 0))
    address = camera.address()
    if state == "opening":
        address = f"rtsp://127.0.0.1:{silent.getsockname()[1]}/live"
    job = make_job(address, timeout_s=5, open_timeout_s=15)
    counters = job.counters[job.streams[0].source.name]
    stopped_s = 0.0

    def disturb() -> None:
        camera.frozen = state == "frozen"
        if state == "away":
            camera.off()

    def stop() -> None:
        nonlocal stopped_s
        stopped_s = time.monotonic()

    begun = time.monotonic()
    Course(job).when(lambda: state == "opening" or counters["tracked"] > 3, disturb).when(
        lambda: time.monotonic() > begun + 1, stop
    ).run()
    assert time.monotonic() - stopped_s < 0.8
    silent.close()


@AS_INSTALLED
@pytest.mark.parametrize(
    ("credentials", "path", "said"),
    [("bob:hunter2", "live", "wrong user name or password"), ("bob:se%25cret", "attic", "path")],
)
def test_a_camera_that_refuses_is_named_without_its_password(
    make_camera: MakeCamera,
    make_job: MakeJob,
    film: Path,
    kind: str,
    credentials: str,
    path: str,
    said: str,
) -> None:
    camera = make_camera(kind, film)
    job = make_job(camera.address(credentials, path))
    job.run()
    reason = job.streams[0].reason
    assert said in reason
    assert f"rtsp://127.0.0.1:{camera.port}/{path}" in reason
    assert credentials.split(":")[1] not in reason
    assert "bob" not in reason


def test_a_camera_that_asks_for_a_digest_never_hears_the_password(
    make_camera: MakeCamera, make_job: MakeJob, film: Path
) -> None:
    camera = make_camera("small", film)
    assert isinstance(camera, SmallCamera)
    camera.digest = True
    job = make_job(camera.address(), limit=5)
    job.run()
    assert job.complete
    refused = make_job(camera.address("bob:hunter2"))
    refused.run()
    assert "wrong user name or password" in refused.streams[0].reason


@pytest.mark.needs_gstreamer
def test_a_camera_is_read_over_udp_where_its_own_settings_say_so(
    make_camera: MakeCamera, make_job: MakeJob, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = make_camera("gstreamer", film)
    source = camera_source("yard", camera.address(), CameraConfig(transport="udp"))
    monkeypatch.setattr("pipeline.job.find_sources", lambda _: (source,))
    asked: list[str] = []
    opened = av.open

    def note(location: str, **more: Any) -> Any:
        asked.append(more["options"]["rtsp_transport"])
        return opened(location, **more)

    monkeypatch.setattr("pipeline.decoding.media.av.open", note)
    job = make_job("yard", limit=20)
    job.run()
    assert job.complete
    assert asked == ["udp"]


def test_pictures_of_an_http_camera_are_timed_by_their_arrival(
    make_job: MakeJob, tmp_path: Path
) -> None:
    with HttpCamera(jpegs_of(make_film(tmp_path / "film.avi", "mjpeg"))) as camera:
        job = make_job(camera.address(), limit=40)
        job.run()
        lines = read_jsonl(tmp_path / f"out/{job.streams[0].source.name}.jsonl")
        assert job.complete
        assert lines[-1]["objects"]
        # it sends 50 a second, and the format says nothing
        apart_s = (lines[-1]["pts_s"] - lines[0]["pts_s"]) / (
            lines[-1]["frame"] - lines[0]["frame"]
        )
        assert apart_s == pytest.approx(0.02, rel=0.3)


@pytest.mark.parametrize(
    ("credentials", "path", "said"),
    [("bob:hunter2", "live", "wrong user name or password"), ("bob:se%25cret", "attic", "no such")],
)
def test_an_http_camera_that_refuses_is_named_without_its_password(
    make_job: MakeJob, credentials: str, path: str, said: str
) -> None:
    with HttpCamera([b""]) as camera:
        job = make_job(camera.address(credentials, path))
        job.run()
    reason = job.streams[0].reason
    assert said in reason
    assert credentials.split(":")[1] not in reason
    assert "bob" not in reason


def test_a_camera_whose_password_changed_is_asked_again_after_half_a_minute(
    make_camera: MakeCamera, make_job: MakeJob, film: Path, caplog: pytest.LogCaptureFixture
) -> None:
    camera = make_camera("small", film)
    assert isinstance(camera, SmallCamera)
    job = make_job(camera.address())
    counters = job.counters[job.streams[0].source.name]

    def change() -> None:
        camera.credentials = "bob:other"
        camera.off()
        camera.on()

    with caplog.at_level(logging.WARNING):
        Course(job).when(lambda: counters["tracked"] > 3, change).when(
            lambda: "wrong user name" in caplog.text, lambda: None
        ).run()
    assert job.complete
    refused = next(line for line in caplog.messages if "wrong user name" in line)
    pause = re.search(r"trying again in ([\d.]+) s", refused)
    assert pause is not None
    assert 24 <= float(pause[1]) <= 30
    assert "se%" not in caplog.text


def test_a_camera_that_never_answers_ends_after_the_limit_and_is_said_once(
    make_job: MakeJob, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, never listening: refused at once
        port = nobody.getsockname()[1]
        job = make_job(f"rtsp://bob:secret@127.0.0.1:{port}/live", open_timeout_s=0.5)
        with caplog.at_level(logging.WARNING):
            job.run()
    assert caplog.text.count("trying again") == 1  # it was tried twice, at 0 and 0.25 s
    assert not job.complete
    assert "cannot be opened" in job.streams[0].reason
    assert "secret" not in str(job.summary())


def test_a_camera_that_opens_and_shows_nothing_ends_after_the_limit(
    make_camera: MakeCamera, make_job: MakeJob, film: Path
) -> None:
    camera = make_camera("small", film)
    assert isinstance(camera, SmallCamera)
    camera.frozen = True
    job = make_job(camera.address(), open_timeout_s=0.7, timeout_s=5)
    began = time.monotonic()
    job.run()
    assert time.monotonic() - began < 1.5
    assert "no frame within 0.7 s" in job.streams[0].reason


def test_a_camera_that_came_before_is_waited_for_without_limit(make_job: MakeJob) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        job = make_job(f"rtsp://127.0.0.1:{nobody.getsockname()[1]}/live", open_timeout_s=0.2)
        job.counters[job.streams[0].source.name].add("packets")
        began = time.monotonic()
        Course(job).when(lambda: time.monotonic() > began + 0.6, lambda: None).run()
    assert job.complete


MS = 1_000_000


def test_a_live_clock_goes_on_after_a_reconnect_by_the_time_that_passed() -> None:
    clock = StreamClock(live=True)
    clock.open(25)
    assert [clock.pts_ns(n * 40 * MS, n * 40 * MS) for n in range(3)] == [0, 40 * MS, 80 * MS]
    clock.open(25)
    assert clock.pts_ns(0, 1080 * MS) == 1080 * MS
    assert clock.pts_ns(40 * MS, 1120 * MS) == 1120 * MS


def test_a_live_clock_that_stands_still_is_replaced_by_the_time_of_arrival() -> None:
    clock = StreamClock(live=True)
    clock.open(25)
    assert clock.pts_ns(500 * MS, 0) == 500 * MS
    assert clock.pts_ns(500 * MS, 60 * MS) == 560 * MS
    assert clock.pts_ns(540 * MS, 100 * MS) == 600 * MS


def test_a_file_without_times_gets_them_from_its_rate() -> None:
    clock = StreamClock(live=False)
    clock.open(20)
    assert [clock.pts_ns(None, 0) for _ in range(3)] == [0, 50 * MS, 100 * MS]


def test_a_file_keeps_its_own_times_even_backwards() -> None:
    clock = StreamClock(live=False)
    clock.open(25)
    assert [clock.pts_ns(t, 0) for t in (100, 50, 75)] == [100, 50, 75]


def test_a_live_clock_that_jumps_goes_on_by_arrival_and_says_so() -> None:
    hour = 3_600_000 * MS
    for jump in (hour, -hour, 3000 * MS, -3000 * MS):
        clock = StreamClock(live=True)
        clock.open(25)
        times = [clock.pts_ns(hour + n * 40 * MS, n * 40 * MS) for n in range(3)]
        assert not clock.jumped
        times.append(clock.pts_ns(hour + jump + 120 * MS, 120 * MS))
        assert clock.jumped
        times.append(clock.pts_ns(hour + jump + 160 * MS, 160 * MS))
        assert not clock.jumped
        assert times == [hour + n * 40 * MS for n in range(5)]


def test_pictures_that_come_late_and_all_at_once_are_no_jump() -> None:
    clock = StreamClock(live=True)
    clock.open(25)
    for n in range(500):
        # a camera whose first second came in a moment, and whose network then slept for 5 s
        arrived = max(n * 40 - 1000, 0) if not 100 < n < 220 else 8000 + n
        assert clock.pts_ns(n * 40 * MS, arrived * MS) == n * 40 * MS
        assert not clock.jumped


def test_a_camera_s_clock_may_be_a_little_fast_or_slow_for_ever() -> None:
    for drift in (0.999, 1.001):
        clock = StreamClock(live=True)
        clock.open(25)
        jumps = 0
        for n in range(100_000):
            clock.pts_ns(round(n * 40 * MS * drift), n * 40 * MS)
            jumps += clock.jumped
        assert jumps == 0


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[CameraState]:
    """What the supervisor hears of cameras."""
    heard: list[CameraState] = []
    handle = Supervisor._handle

    def note(self: Supervisor, worker: str, report: Any) -> None:
        if isinstance(report, CameraState):
            heard.append(report)
        handle(self, worker, report)

    monkeypatch.setattr(Supervisor, "_handle", note)
    return heard


@pytest.mark.parametrize("ahead_s", [-3600, 3600])
def test_a_camera_whose_time_jumps_goes_on_and_its_tracks_begin_anew(
    make_camera: MakeCamera, make_job: MakeJob, film: Path, tmp_path: Path, ahead_s: float
) -> None:
    camera = make_camera("small", film)
    assert isinstance(camera, SmallCamera)
    job = make_job(camera.address())
    name = job.streams[0].source.name
    counters = job.counters[name]
    tracked_then, identities_then = 0, 0

    def jump() -> None:
        nonlocal tracked_then, identities_then
        tracked_then, identities_then = counters["tracked"], counters["identities"]
        camera.ahead_s = ahead_s

    Course(job).when(lambda: counters["tracked"] > 10, jump).when(
        lambda: counters["tracked"] > tracked_then + 10, lambda: None
    ).run()
    assert counters["reconnects"] == 0
    assert counters["identities"] > identities_then
    times = [line["pts_s"] for line in read_jsonl(tmp_path / f"out/{name}.jsonl")]
    assert times == sorted(times)
    assert times[-1] - times[0] < 30


def test_a_camera_that_is_silent_or_shows_one_picture_for_ever_is_told_of(
    make_camera: MakeCamera, make_job: MakeJob, film: Path, tmp_path: Path, told: list[CameraState]
) -> None:
    camera = make_camera("small", film)
    assert isinstance(camera, SmallCamera)
    job = make_job(camera.address(), frozen_s=0.4, timeout_s=1.5)
    counters = job.counters[job.streams[0].source.name]
    still = make_film(tmp_path / "still.mp4", num_frames=1)

    def show(clip: Path) -> None:
        camera.frozen = False
        camera.off()
        camera.show(clip)
        camera.on()

    def fall_silent() -> None:
        camera.frozen = True

    def states() -> list[str]:
        return [state.state for state in told]

    Course(job).when(lambda: counters["tracked"] > 10, fall_silent).when(
        lambda: "stalled" in states(), lambda: show(still)
    ).when(lambda: "frozen" in states(), lambda: show(film)).when(
        lambda: states()[-1] == "live", lambda: None
    ).run()
    assert states()[:3] == ["connecting", "live", "stalled"]
    assert states()[states().index("frozen") :][-2:] == ["lost", "live"]
    assert all(bool(one.reason) == (one.state not in ("connecting", "live")) for one in told)
    assert counters["dropped_corrupt"] > 0
    assert counters.num_in_flight == 0


def test_wrong_credentials_and_a_missing_path_are_states_of_their_own(
    make_camera: MakeCamera, make_job: MakeJob, film: Path, told: list[CameraState]
) -> None:
    camera = make_camera("small", film)
    for address in (camera.address("bob:no"), camera.address(path="attic")):
        job = make_job(address)
        job.counters[job.streams[0].source.name].add("packets")  # it was there before
        seen = len(told)
        Course(job).when(lambda seen=seen: len(told) > seen + 1, lambda: None).run()
    assert [one.state for one in told if one.reason] == ["wrong-credentials", "unsupported"]
    assert not any("bob" in one.reason or "se%" in one.reason for one in told)
