"""Streams that come, change and go: sentences 13 to 16 of the contract in `pipeline/runner.py`."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from pipeline.config import Placement, ServiceConfig, SourceConfig, SupervisionConfig
from pipeline.decoding.inputs import Source
from pipeline.errors import CameraRefused
from pipeline.metrics import CounterTable
from pipeline.roster import Roster
from pipeline.stages.decode import Decode
from tests.pipeline.cameras import make_film
from tests.pipeline.scenes import make_scene
from tests.pipeline.service import DOOR, GATE, YARD, Running, replay, running
from tests.pipeline.small_camera import SmallCamera

BOTH = pytest.mark.parametrize("placement", ["threads", "processes"])

UNHURRIED: dict[str, Any] = {"source": SourceConfig(staleness_s=10), "window": 64}
"""What is lost then is not this machine's slowness."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scene(tmp_path_factory.mktemp("clip") / "yard.mp4", num_frames=50, bframes=0)


def assert_whole(service: Running, name: str) -> None:
    """Every frame of a camera was tracked, none twice."""
    frames = [frame.frame_index for frame, _ in service.frames[name]]
    counters = service.supervisor.streams[name].counters
    assert frames == list(range(len(frames)))
    assert counters["late_packets"] == counters.num_dropped == 0


@BOTH
def test_cameras_come_change_and_go_while_another_loses_no_frame(
    placement: Placement, card_file: Path, clip: Path
) -> None:
    with running(card_file, replay(YARD, clip), placement=placement, **UNHURRIED) as service:
        supervisor = service.supervisor
        service.wait_for_frames(YARD, 5)
        first = supervisor.streams[YARD]
        supervisor.add(replay(DOOR, clip))
        service.wait_for_frames(DOOR, 10)
        supervisor.replace(replay(DOOR, make_scene(clip.with_name("other.mp4"), speed=5)))
        service.wait(lambda: supervisor.streams[DOOR].branch.stream == f"{DOOR}@2")
        of_first = len(service.frames[DOOR])
        service.wait_for_frames(DOOR, 10)
        supervisor.remove(DOOR)
        service.wait(lambda: service.is_gone(DOOR))
        service.wait_for_frames(YARD, 5)
        assert supervisor.streams[YARD] is first
        assert_whole(service, YARD)
        # the changed camera: its branches end and begin in good order under one name
        indices = [frame.frame_index for frame, _ in service.frames[DOOR]]
        assert indices == [*range(of_first), *range(len(indices) - of_first)]
        assert median(service.latency_ms[YARD]) < 250
        assert max(service.latency_ms[YARD][5:]) < 2500
        counted = supervisor.counted()[DOOR]
        assert counted["decoded"] == counted["tracked"] == len(indices)
        before, after = (
            {n for _, t in part for n in t.track_id}
            for part in (service.frames[DOOR][:of_first], service.frames[DOOR][of_first:])
        )
        assert before
        assert max(before) < min(after)


def test_without_a_stream_a_service_waits_for_one_and_a_row_is_used_again(
    card_file: Path, clip: Path
) -> None:
    with running(card_file, service=ServiceConfig(most_cameras=1)) as service:
        supervisor = service.supervisor
        for name in (YARD, DOOR, YARD):
            supervisor.add(replay(name, clip))
            with pytest.raises(CameraRefused, match="the most; raise"):
                supervisor.add(replay(GATE, clip))
            service.wait_for_frames(name, 3)
            supervisor.remove(name)
            service.wait(lambda: not supervisor.streams)
        counted = supervisor.counted()
        for name in (YARD, DOOR):
            assert counted[name]["tracked"] == len(service.frames[name])
        assert not supervisor.usage
        assert not supervisor._crew._desk._uses.keys() - {"/predictions/1x96x160"}


def test_a_camera_that_is_changed_twice_at_once_is_begun_once_more(
    card_file: Path, clip: Path
) -> None:
    with running(card_file, replay(YARD, clip)) as service:
        service.wait_for_frames(YARD, 3)
        for name in ("a.mp4", "b.mp4"):
            (clip.parent / name).write_bytes(clip.read_bytes())
            service.supervisor.replace(replay(YARD, clip.parent / name))
        service.wait(lambda: service.supervisor.streams[YARD].branch.stream != YARD)
        assert service.supervisor.streams[YARD].source.location.endswith("b.mp4")


def test_names_that_are_taken_unknown_or_not_fit_are_refused(clip: Path) -> None:
    roster = Roster([replay(YARD, clip)], room=2)
    with pytest.raises(CameraRefused, match="there is a camera of this name"):
        roster.add(replay(YARD, clip))
    with pytest.raises(CameraRefused, match="neither empty nor hold"):
        roster.add(replay(f"{YARD}@2", clip))
    for call in (roster.remove, lambda name: roster.replace(replay(name, clip))):
        with pytest.raises(CameraRefused, match=f"no camera of this name; there are {YARD}"):
            call(DOOR)


def test_a_row_is_given_again_only_after_it_was_released() -> None:
    table = CounterTable(room=2)
    rows = {table.claim("a"), table.claim("b")}
    assert rows == {0, 1}
    assert not table.has_room
    table["a"].add("decoded", 7)
    seen_elsewhere = CounterTable(descriptor=os.dup(table.descriptor))
    assert seen_elsewhere.at(0)["decoded"] == 7
    table.release("a")
    assert table.claim("c") == 0
    assert table["c"]["decoded"] == 0
    assert len(list(table.values())) == 2


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[SmallCamera]:
    camera = SmallCamera(make_film(tmp_path / "film.mp4"))
    yield camera
    camera.off()


def rtsp(camera: SmallCamera, **address: Any) -> Source:
    return Source(name="yard", kind="rtsp", location=camera.address(**address))


def test_a_camera_that_never_gave_a_frame_is_tried_for_ever_and_its_states_are_told(
    card_file: Path, camera: SmallCamera
) -> None:
    config = SourceConfig(open_timeout_s=0.1, timeout_s=1)
    with running(card_file, rtsp(camera), source=config) as service:
        state = service.supervisor.streams["yard"]
        service.wait(lambda: state.camera.state == "lost")
        lost_s = state.camera_since_s
        camera.on()
        service.wait(lambda: state.camera.state == "live")
        assert state.camera_since_s > lost_s
        assert state.camera.reason == ""
        camera.frozen = True
        service.wait(lambda: state.camera.state == "stalled")
        assert state.camera.reason == "nothing comes"
        service.wait(lambda: state.camera.state == "lost")
        camera.frozen = False
        service.wait(lambda: state.camera.state == "live")
        assert service.supervisor.streams["yard"] is state


def test_wrong_credentials_are_told_without_them(card_file: Path, camera: SmallCamera) -> None:
    camera.on()
    source = rtsp(camera, credentials="bob:not-it")
    with running(card_file, source) as service:
        state = service.supervisor.streams["yard"]
        service.wait(lambda: state.camera.state == "wrong-credentials")
        assert "not-it" not in service.told()
        service.supervisor.replace(rtsp(camera))  # though the next try would be far away
        service.wait_for_frames("yard", 3)
        assert service.supervisor.streams["yard"].camera.state == "live"


def test_what_is_no_video_is_unsupported_and_tried_again(tmp_path: Path, card_file: Path) -> None:
    (tmp_path / "no.mp4").write_bytes(bytes(4000))
    with running(card_file, replay("yard", tmp_path / "no.mp4")) as service:
        state = service.supervisor.streams["yard"]
        service.wait(lambda: state.camera.state == "unsupported")
        assert "no.mp4" in state.camera.reason
        make_scene(tmp_path / "no.mp4", num_frames=50, bframes=0)
        service.wait_for_frames("yard", 3)


def test_16_a_branch_that_fails_again_and_again_has_failed_and_is_tried_after_a_pause(
    card_file: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = True
    open_as_it_is = Decode._open

    def open_(self: Decode, *arguments: Any) -> None:
        if broken and self._stream.startswith(DOOR):
            raise RuntimeError("the decoder broke")
        open_as_it_is(self, *arguments)

    monkeypatch.setattr(Decode, "_open", open_)
    patient = ServiceConfig(retry_failed_s=0.5)
    limits = SupervisionConfig(restarts=3)
    sources = (replay(YARD, clip), replay(DOOR, clip))
    with running(card_file, *sources, service=patient, supervision=limits, **UNHURRIED) as service:
        streams = service.supervisor
        service.wait(lambda: DOOR in streams.streams and streams.streams[DOOR].failed)
        assert streams.streams[DOOR].branch.stream == f"{DOOR}@3"
        assert "the decoder broke" in streams.streams[DOOR].reason
        broken = False
        service.wait_for_frames(DOOR, 3)
        assert_whole(service, YARD)


def test_16_a_reader_that_dies_too_often_rests_while_others_run(
    card_file: Path, clip: Path
) -> None:
    killed: set[int] = set()
    service_config = ServiceConfig(retry_failed_s=3600)
    limits = SupervisionConfig(restarts=2)
    sources = (replay(YARD, clip), replay(DOOR, clip))
    with running(
        card_file,
        *sources,
        service=service_config,
        supervision=limits,
        placement="processes",
        **UNHURRIED,
    ) as service:
        supervisor = service.supervisor
        service.wait_for_frames(DOOR, 3)

        def kill() -> bool:
            for process in list(supervisor._crew._processes):
                reads = process.group == "read" and process.stream == DOOR
                if reads and process.pid and process.pid not in killed:
                    killed.add(process.pid)
                    os.kill(process.pid, signal.SIGKILL)
            return supervisor.streams[DOOR].failed

        service.wait(kill)
        assert len(killed) == 2
        service.wait(lambda: supervisor.streams[DOOR].ended_s is not None)
        service.wait_for_frames(YARD, 10)
        assert_whole(service, YARD)


def test_15_a_trunk_that_dies_is_replaced_though_no_stream_is_there(
    card_file: Path, clip: Path
) -> None:
    with running(card_file, placement="processes") as service:
        crew = service.supervisor._crew
        service.wait(lambda: any(process.pid for process in list(crew._processes)))
        os.kill(crew._processes[0].pid, signal.SIGKILL)
        service.wait(lambda: len(service.supervisor.replaced) == 1)
        service.supervisor.add(replay(YARD, clip))
        service.wait_for_frames(YARD, 3)
        assert service.supervisor.fault == ""
