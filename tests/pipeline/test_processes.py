"""Stages in processes: sentences 7 to 12 of the failure contract in `pipeline/runner.py`."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.config import ModelConfig
from pipeline.api import run
from pipeline.config import (
    GateConfig,
    OutputConfig,
    PipelineConfig,
    SourceConfig,
    SupervisionConfig,
)
from pipeline.job import Job
from tests.pipeline.cameras import make_film
from tests.pipeline.scenes import (
    Once,
    SquareEngine,
    build_squares,
    count_frames,
    make_scene,
    read_jsonl,
)
from tests.pipeline.small_camera import SmallCamera

NUM_FRAMES = 150
GROUPS = ("trunk", "read", "track", "sinks")


pytestmark = pytest.mark.usefixtures("squares")


@pytest.fixture(scope="module")
def weights(card_file: Path) -> Path:
    return card_file


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scene(tmp_path_factory.mktemp("clip") / "yard.mp4", num_frames=NUM_FRAMES)


@pytest.fixture(scope="module")
def expected(clip: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The tracks that threads give."""
    folder = tmp_path_factory.mktemp("threads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.job.build_engine", build_squares)
        config = make_config(weights, folder).model_copy(update={"placement": "threads"})
        assert run_job(config, clip).complete
    return tracks(folder)


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = workers()
    yield
    wait_for(lambda: workers() <= before)


def make_config(weights: Path, folder: Path, **nodes: object) -> PipelineConfig:
    output = nodes.pop("output", OutputConfig(directory=folder))
    return PipelineConfig(
        model=ModelConfig(weights=weights, image_size=160),
        placement="processes",
        output=output,
        **nodes,  # type: ignore[arg-type]
    )


def run_job(
    config: PipelineConfig, *sources: Path | str, on_tick: Callable[[Job], None] = lambda _: None
) -> Job:
    job = Job(config, [str(source) for source in sources])
    job.run(lambda: on_tick(job))
    return job


def tracks(folder: Path) -> bytes:
    return (folder / "yard.mot.txt").read_bytes() + (folder / "yard.jsonl").read_bytes()


def pids(job: Job, group: str) -> list[int]:
    crew = job.supervisor._crew
    known = [*crew._processes, *crew._hiring.nurseries]
    return [process.pid for process in known if process.group == group and process.pid]


def once_at(
    tracked: int, group: str, number: int = signal.SIGKILL, *, stream: str = "yard"
) -> Callable[[Job], None]:
    """Send a signal to a group's process when so many frames are tracked."""
    done = False

    def tick(job: Job) -> None:
        nonlocal done
        if not done and job.counters[stream]["tracked"] >= tracked and pids(job, group):
            done = True
            os.kill(pids(job, group)[0], number)

    return tick


def workers() -> set[int]:
    """The worker processes of this machine that are alive."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                state = (folder / "stat").read_text().rsplit(")", 1)[1].split()[0]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if b"pipeline.worker" in words and state != "Z":
                found.add(int(folder.name))
    return found


def wait_for(true: Callable[[], bool], timeout_s: float = 10.0) -> None:
    until = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.02)


def test_processes_give_the_tracks_of_threads_byte_for_byte(
    tmp_path: Path, weights: Path, clip: Path, expected: bytes
) -> None:
    job = run_job(make_config(weights, tmp_path), clip)
    assert job.complete, job.streams[0].reason + job.streams[0].trace
    assert tracks(tmp_path) == expected
    assert job.summary()["replaced"] == []


def test_each_group_of_stages_has_a_process_of_its_own(
    tmp_path: Path, weights: Path, clip: Path
) -> None:
    seen: dict[str, int] = {}

    def look(job: Job) -> None:
        for group in GROUPS:
            seen.update((group, pid) for pid in pids(job, group))

    run_job(make_config(weights, tmp_path), clip, on_tick=look)
    assert set(seen) == set(GROUPS)
    assert len(set(seen.values())) == len(GROUPS)
    assert os.getpid() not in seen.values()


def test_annotated_video_is_the_same_through_processes(
    tmp_path: Path, weights: Path, clip: Path
) -> None:
    videos = []
    for placement in ("threads", "processes"):
        output = OutputConfig(directory=tmp_path / placement, save_video=True)
        config = make_config(weights, tmp_path, output=output)
        run_job(config.model_copy(update={"placement": placement}), clip)
        videos.append((tmp_path / placement / "yard.mp4").read_bytes())
    assert videos[0] == videos[1]


def test_processes_are_used_again_for_the_next_file(tmp_path: Path, weights: Path) -> None:
    seed = make_scene(tmp_path / "seed.mp4", num_frames=3)
    for number in range(12):
        (tmp_path / f"{number}.mp4").write_bytes(seed.read_bytes())
    started: set[int] = set()

    def look(job: Job) -> None:
        started.update(pid for group in GROUPS for pid in pids(job, group))

    clips = [tmp_path / f"{number}.mp4" for number in range(12)]
    job = run_job(make_config(weights, tmp_path / "out", parallel=1), *clips, on_tick=look)
    assert job.complete, job.streams[0].reason + job.streams[0].trace
    assert len(started) == len(GROUPS)
    assert all(counters["tracked"] == 3 for counters in job.counters.values())


def test_python_gets_every_result_through_processes(
    tmp_path: Path, weights: Path, clip: Path
) -> None:
    results = list(run(clip, config=make_config(weights, tmp_path)))
    assert [result.frame_index for result in results] == list(range(NUM_FRAMES))
    assert {name for result in results for name in result.class_names} == {"square"}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("group", ["trunk", "read"])
def test_8_and_9_a_trunk_or_reader_that_dies_is_replaced_and_the_tracks_are_the_same(
    group: str, seed: int, tmp_path: Path, weights: Path, clip: Path, expected: bytes
) -> None:
    at = random.Random(seed).randrange(NUM_FRAMES - 40)
    job = run_job(make_config(weights, tmp_path), clip, on_tick=once_at(at, group))
    assert job.complete, job.streams[0].reason
    assert tracks(tmp_path) == expected
    assert [death.group for death in job.supervisor.replaced] == [group]
    counters = job.counters["yard"]
    assert counters["decoded"] == counters["tracked"] == NUM_FRAMES
    assert counters["packets"] == NUM_FRAMES


def test_9_a_reader_that_dies_loses_no_picture_of_the_video(
    tmp_path: Path, weights: Path, clip: Path
) -> None:
    videos = []
    for name, tick in (("whole", lambda _: None), ("killed", once_at(60, "read"))):
        output = OutputConfig(directory=tmp_path / name, save_video=True)
        config = make_config(weights, tmp_path, output=output)
        job = run_job(config, clip, on_tick=tick)
        assert job.complete, job.streams[0].reason + job.streams[0].trace
        videos.append((tmp_path / name / "yard.mp4").read_bytes())
    assert [death.group for death in job.supervisor.replaced] == ["read"]
    assert count_frames(tmp_path / "killed/yard.mp4") == NUM_FRAMES
    assert videos[0] == videos[1]


def test_9_a_file_is_decoded_again_from_a_keyframe_and_not_from_its_start(
    tmp_path: Path, weights: Path
) -> None:
    clip = make_scene(tmp_path / "yard.mp4", num_frames=1500)
    job = run_job(make_config(weights, tmp_path / "out"), clip, on_tick=once_at(1000, "read"))
    assert job.complete, job.streams[0].reason + job.streams[0].trace
    checkpoint = job.streams[0].checkpoint
    assert checkpoint is not None
    assert checkpoint.packet >= 100
    assert job.counters["yard"]["tracked"] == 1500


RARELY: dict[str, dict[str, Any]] = {
    "gate": {"gate": GateConfig(hold_s=0.3, refresh_s=0.8)},
    "both": {
        "source": SourceConfig(detect_every=3),
        "gate": GateConfig(hold_s=0.3, refresh_s=0.8),
    },
}


@pytest.mark.parametrize("kind", RARELY)
def test_9_where_the_detector_looks_rarely_the_tracks_are_the_same_too(
    kind: str, tmp_path: Path, weights: Path
) -> None:
    """Through threads, through processes, and where the reader or the trunk is killed."""
    halts = [index for index in range(300) if index // 25 % 3]
    clip = make_scene(tmp_path / "yard.mp4", num_frames=300, halts=halts)
    found, counted = [], []
    for name in ("threads", "processes", "read", "trunk"):
        config = make_config(weights, tmp_path / name, **RARELY[kind])
        if name == "threads":
            config = config.model_copy(update={"placement": "threads"})
        tick = once_at(40, name) if name in GROUPS else lambda _: None
        job = run_job(config, clip, on_tick=tick)
        assert job.complete, job.streams[0].reason + job.streams[0].trace
        assert [death.group for death in job.supervisor.replaced] == [name] * (name in GROUPS)
        if name == "read":
            assert job.streams[0].checkpoint is not None
        found.append(tracks(tmp_path / name))
        counted.append(job.counters["yard"].as_dict())
    assert found[1:] == found[:1] * 3
    assert counted[1:] == counted[:1] * 3
    assert counted[0]["decoded"] == 300
    assert counted[0]["skipped_gate"] > 40
    assert (counted[0]["skipped_detect_every"] > 100) == (kind == "both")


class ShapedEngine(SquareEngine):
    """Scores by the shape of its canvas."""

    def infer(self, images: np.ndarray) -> np.ndarray:
        rows = super().infer(images)
        rows[0, 4] *= images.shape[1] / 200
        return rows


def build_shaped(_: Any, *, image_hw: tuple[int, int], **_more: Any) -> SquareEngine:
    return ShapedEngine(image_hw)


def test_9_pictures_of_mixed_sizes_come_again_on_the_canvas_they_had(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A portrait early on moves the stream to the square canvas, for good."""
    monkeypatch.setattr("pipeline.job.build_engine", build_shaped)
    (tmp_path / "yard").mkdir()
    for number in range(300):
        picture = np.full((300, 100, 3) if number == 20 else (96, 160, 3), 20, np.uint8)
        picture[30:60, number % 60 : number % 60 + 30] = 250
        Image.fromarray(picture).save(tmp_path / f"yard/{number}.bmp")
    found = []
    for name, tick in (("whole", lambda _: None), ("killed", once_at(200, "read"))):
        job = run_job(make_config(weights, tmp_path / name), tmp_path / "yard", on_tick=tick)
        assert job.complete, job.streams[0].reason
        found.append(tracks(tmp_path / name))
    assert [death.group for death in job.supervisor.replaced] == ["read"]
    assert found[0] == found[1]


def test_9_damaged_packets_are_counted_once_though_they_are_decoded_twice(
    tmp_path: Path, weights: Path, clip: Path
) -> None:
    damaged = bytearray(clip.read_bytes())
    middle = len(damaged) // 3
    damaged[middle : middle + 400] = bytes(400)
    (tmp_path / "yard.mp4").write_bytes(damaged)
    outcomes = []
    for name, tick in (("whole", lambda _: None), ("killed", once_at(90, "read"))):
        job = run_job(make_config(weights, tmp_path / name), tmp_path / "yard.mp4", on_tick=tick)
        outcomes.append((job.counters["yard"].as_dict(), job.streams[0].reason))
    assert outcomes[0][0]["undecodable"] > 0
    assert outcomes[0] == outcomes[1]


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[SmallCamera]:
    camera = SmallCamera(make_film(tmp_path / "film.mp4"))
    camera.on()
    yield camera
    camera.off()


@pytest.mark.parametrize("group", ["trunk", "read", "track"])
def test_8_9_and_10_whoever_dies_behind_a_camera_is_replaced_and_every_frame_accounted_for(
    group: str, tmp_path: Path, weights: Path, camera: SmallCamera
) -> None:
    name, after = "127.0.0.1-live", 0
    killing = once_at(30, group, stream=name)

    def tick(job: Job) -> None:
        nonlocal after
        tracked = job.counters[name]["tracked"]
        killing(job)
        if job.supervisor.replaced:
            after = after or tracked
            if tracked > after + 40:
                stop()

    job = Job(make_config(weights, tmp_path / "out"), [camera.address()])
    stop = Once(job.stop)
    job.run(lambda: tick(job))
    assert job.complete, job.streams[0].reason
    assert [death.group for death in job.supervisor.replaced] == [group]
    counters = job.counters[name]
    assert counters["decoded"] == counters["tracked"] + counters.num_dropped
    lines = read_jsonl(tmp_path / f"out/{name}.jsonl")
    frames = [line["frame"] for line in lines]
    assert frames == sorted(set(frames))
    assert len(frames) == counters["tracked"]
    times = [line["pts_s"] for line in lines]
    assert times == sorted(times)
    if group != "trunk":
        before = ids_in(line for line in lines if line["frame"] <= 20)
        later = ids_in(lines[-20:])
        assert later
        assert before.isdisjoint(later)


def ids_in(lines: Iterable[dict[str, Any]]) -> set[int]:
    return {found["id"] for line in lines for found in line["objects"]}


def test_10_a_camera_without_its_sinks_has_failed(
    tmp_path: Path, weights: Path, camera: SmallCamera
) -> None:
    name = "127.0.0.1-live"
    killing = once_at(20, "sinks", stream=name)
    job = run_job(make_config(weights, tmp_path / "out"), camera.address(), on_tick=killing)
    assert "write-tracks" in job.streams[0].reason
    assert (tmp_path / f"out/{name}.jsonl.partial").exists()
    assert job.counters[name].num_in_flight == 0


@pytest.mark.parametrize("group", ["track", "sinks"])
def test_10_a_file_without_its_tracker_or_sinks_fails_and_others_finish(
    group: str, tmp_path: Path, weights: Path, clip: Path
) -> None:
    other = tmp_path / "other.mp4"
    other.write_bytes(clip.read_bytes())
    job = run_job(
        make_config(weights, tmp_path / "out", parallel=1),
        clip,
        other,
        on_tick=once_at(30, group),
    )
    failed, whole = job.streams
    assert not failed.complete
    assert "ended before its work did: it died" in failed.reason
    assert whole.complete
    assert (tmp_path / "out/yard.jsonl.partial").exists()
    assert not (tmp_path / "out/yard.jsonl").exists()
    assert len(read_jsonl(tmp_path / "out/other.jsonl")) == NUM_FRAMES
    counters = job.counters["yard"]
    assert counters["dropped_stage_died"] > 0
    assert counters.num_in_flight == 0


def test_10_the_mp4_of_sinks_that_died_plays_as_far_as_it_goes(
    tmp_path: Path, weights: Path, clip: Path
) -> None:
    output = OutputConfig(directory=tmp_path, save_video=True)
    config = make_config(weights, tmp_path, output=output)
    run_job(config, clip, on_tick=once_at(120, "sinks"))
    assert 40 < count_frames(tmp_path / "yard.mp4.partial") < NUM_FRAMES


def test_the_nursery_may_die_without_harm(
    tmp_path: Path, weights: Path, clip: Path, expected: bytes
) -> None:
    killed = Once(lambda: None)

    def kill(job: Job) -> None:
        nurseries = job.supervisor._crew._hiring.nurseries
        if job.counters["yard"]["tracked"] > 20 and nurseries and not killed._done:
            killed()
            os.kill(nurseries[0].pid, signal.SIGKILL)

    again = tmp_path / "again.mp4"
    again.write_bytes(clip.read_bytes())
    config = make_config(weights, tmp_path / "out", parallel=2)
    job = run_job(config, clip, again, on_tick=kill)
    assert job.complete, job.streams[0].reason + job.streams[0].trace
    assert tracks(tmp_path / "out") == expected


def test_7_a_process_that_hangs_is_killed_and_replaced(
    tmp_path: Path, weights: Path, clip: Path, expected: bytes
) -> None:
    config = make_config(weights, tmp_path, supervision=SupervisionConfig(hang_s=1.5))
    job = run_job(config, clip, on_tick=once_at(40, "trunk", signal.SIGSTOP))
    assert job.complete, job.streams[0].reason + job.streams[0].trace
    assert tracks(tmp_path) == expected
    (death,) = job.supervisor.replaced
    assert death.reason.startswith("it hung for 2 s (supervision.hang_s 1.5)")


@pytest.mark.parametrize("group", ["read", "trunk"])
def test_11_what_dies_again_and_again_is_not_replaced_for_ever(
    group: str, tmp_path: Path, weights: Path
) -> None:
    clip = make_scene(tmp_path / "yard.mp4", num_frames=1500)
    killed: set[int] = set()

    def kill(job: Job) -> None:
        for pid in set(pids(job, group)) - killed:
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)

    config = make_config(weights, tmp_path, supervision=SupervisionConfig(restarts=3))
    job = run_job(config, clip, on_tick=kill)
    assert len(killed) == 3
    assert len(job.supervisor.replaced) == 2
    assert not job.complete
    assert "ended before its work did" in job.streams[0].reason


def test_an_early_end_holds_though_a_reader_is_replaced(
    tmp_path: Path, weights: Path, clip: Path
) -> None:
    config = make_config(weights, tmp_path, source=SourceConfig(limit=60))
    job = run_job(config, clip, on_tick=once_at(30, "read"))
    assert job.complete, job.streams[0].reason + job.streams[0].trace
    assert len(read_jsonl(tmp_path / "yard.jsonl")) == 60


def test_a_stop_is_obeyed_by_a_reader_that_was_replaced(tmp_path: Path, weights: Path) -> None:
    clip = make_scene(tmp_path / "yard.mp4", num_frames=2000)
    killing = once_at(30, "read")

    def tick(job: Job) -> None:
        killing(job)
        if job.supervisor.replaced:
            stop()

    job = Job(make_config(weights, tmp_path / "out"), [str(clip)])
    stop = Once(job.stop)
    job.run(lambda: tick(job))
    counters = job.counters["yard"]
    assert 30 <= counters["tracked"] < 2000
    assert counters.num_in_flight == 0
    assert len(read_jsonl(tmp_path / "out/yard.jsonl")) == counters["tracked"]


def test_12_after_the_supervisor_is_killed_nothing_is_left(tmp_path: Path, weights: Path) -> None:
    clip = make_scene(tmp_path / "yard.mp4", num_frames=3000)
    script = textwrap.dedent(
        f"""
        import pipeline.job
        from pathlib import Path
        from tests.pipeline.scenes import build_squares
        from tests.pipeline.test_processes import make_config
        pipeline.job.build_engine = build_squares
        config = make_config(Path({str(weights)!r}), Path({str(tmp_path / "out")!r}))
        job = pipeline.job.Job(config, [{str(clip)!r}])
        def tick():
            if job.counters["yard"]["tracked"] > 20:
                print("working", flush=True)
        job.run(tick)
        """
    )
    before, sockets = workers(), sightline_sockets()
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"working\n"
    assert len(workers() - before) == len(GROUPS) + 1
    assert sightline_sockets() > sockets
    child.kill()
    child.wait()
    child.stdout.close()
    wait_for(lambda: workers() <= before, timeout_s=3)
    wait_for(lambda: sightline_sockets() <= sockets)
    assert not [path for path in Path("/dev/shm").iterdir() if "sightline" in path.name]


def sightline_sockets() -> set[str]:
    lines = Path("/proc/net/unix").read_text().splitlines()
    return {line.split()[-1] for line in lines if "@sightline-" in line}


def test_another_user_cannot_connect_to_the_queues(
    tmp_path: Path, weights: Path, clip: Path
) -> None:
    if os.getuid() != 0:
        pytest.skip("only root may become another user")
    answers: list[str] = []

    def intrude(_: Job) -> None:
        places = [name for name in sightline_sockets() if "frames.infer" in name]
        if not places or answers:
            return
        script = textwrap.dedent(
            f"""
            import os, zmq
            os.setuid(65534)
            socket = zmq.Context().socket(zmq.DEALER)
            socket.connect("ipc://" + {places[0]!r})
            socket.send(b"H")
            print("answered" if socket.poll(300) else "silence")
            os._exit(0)
            """
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        answers.append(done.stdout.strip() or done.stderr)

    assert run_job(make_config(weights, tmp_path), clip, on_tick=intrude).complete
    assert answers == ["silence"]
