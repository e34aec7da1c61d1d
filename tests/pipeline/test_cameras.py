"""Live sources: a real RTSP camera on this machine, and the rules for times and lost packets."""

import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from model.config import ModelConfig
from pipeline.config import OutputConfig, PipelineConfig, SourceConfig
from pipeline.job import Job
from pipeline.stages.decode import StreamClock
from tests.pipeline.scenes import (
    Once,
    build_squares,
    count_frames,
    make_camera_pictures,
    make_card_file,
    read_jsonl,
)

SYSTEM_PYTHON = "/usr/bin/python3"
SERVER = "import gi; gi.require_version('GstRtspServer', '1.0')"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_camera_pictures(tmp_path_factory.mktemp("camera") / "pictures")


class Camera:
    """A camera that can be switched off and on."""

    def __init__(self, pictures: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._pictures = pictures
        self._process: subprocess.Popen[str] | None = None

    def on(self) -> None:
        program = Path(__file__).parent / "rtsp_camera.py"
        self._process = subprocess.Popen(
            [SYSTEM_PYTHON, program, self._pictures, str(self.port), "bob:se%cret"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def off(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.communicate()
            self._process = None

    def address(self, credentials: str = "bob:se%25cret", path: str = "live") -> str:
        return f"rtsp://{credentials}@127.0.0.1:{self.port}/{path}"


@pytest.fixture
def camera(pictures: Path) -> Iterator[Camera]:
    found = subprocess.run([SYSTEM_PYTHON, "-c", SERVER], capture_output=True, check=False)
    if found.returncode != 0:
        pytest.skip("needs GStreamer's RTSP server: apt-get install gir1.2-gst-rtsp-server-1.0")
    camera = Camera(pictures)
    camera.on()
    yield camera
    camera.off()


@pytest.fixture
def make_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Job]:
    monkeypatch.setattr("pipeline.job.build_engine", build_squares)
    weights = make_card_file(tmp_path / "card.safetensors")

    def make(address: str, **source: object) -> Job:
        config = PipelineConfig(
            model=ModelConfig(weights=weights, image_size=160),
            source=SourceConfig.model_validate({"open_timeout_s": 2, "timeout_s": 2, **source}),
            output=OutputConfig(directory=tmp_path / "out", save_video=True),
        )
        return Job(config, [address])

    return make


@pytest.mark.needs_gstreamer
def test_a_camera_is_tracked_until_the_limit(
    camera: Camera, make_job: Callable[..., Job], tmp_path: Path
) -> None:
    job = make_job(camera.address(), limit=40)
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


@pytest.mark.needs_gstreamer
def test_a_camera_that_goes_away_is_followed_again(
    camera: Camera, make_job: Callable[..., Job]
) -> None:
    job = make_job(camera.address())
    (state,) = job.streams
    counters = job.counters[state.source.name]
    switched_at = 0
    stop = Once(job.stop)

    def tick() -> None:
        nonlocal switched_at
        if not switched_at and counters["tracked"] > 20:
            camera.off()
            camera.on()
            switched_at = counters["tracked"]
        if switched_at and counters["reconnects"] and counters["tracked"] > switched_at + 30:
            stop()

    job.run(tick)
    assert state.complete
    assert counters["reconnects"] >= 1
    assert counters.num_in_flight == 0


@pytest.mark.needs_gstreamer
@pytest.mark.parametrize(
    ("credentials", "path", "said"),
    [("bob:hunter2", "live", "wrong user name or password"), ("bob:se%25cret", "attic", "path")],
)
def test_a_camera_that_refuses_is_named_without_its_password(
    camera: Camera, make_job: Callable[..., Job], credentials: str, path: str, said: str
) -> None:
    job = make_job(camera.address(credentials, path))
    job.run()
    reason = job.streams[0].reason
    assert said in reason
    assert f"rtsp://127.0.0.1:{camera.port}/{path}" in reason
    assert credentials.split(":")[1] not in reason
    assert "bob" not in reason


def test_a_camera_that_never_answers_ends_after_the_limit(make_job: Callable[..., Job]) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, never listening: refused at once
        port = nobody.getsockname()[1]
        job = make_job(f"rtsp://bob:secret@127.0.0.1:{port}/live", open_timeout_s=0.5)
        job.run()
    assert not job.complete
    assert "cannot be opened" in job.streams[0].reason
    assert "secret" not in str(job.summary())


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
