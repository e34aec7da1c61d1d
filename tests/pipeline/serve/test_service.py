# SPDX-License-Identifier: Apache-2.0
"""A service over replayed scenes, as those who watch it from outside see it."""

import io
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import sightline
from model.errors import EngineError
from pipeline.errors import PipelineError
from pipeline.serve import service as service_module
from pipeline.serve.service import Service
from pipeline.telling.config import TellingConfig
from pipeline.telling.teller import Teller
from pipeline.transport.memory import PoolDesk
from pipeline.transport.pool import PoolFile
from tests.pipeline.scenes import (
    SIZE,
    SquareEngine,
    build_squares,
    make_card_file,
    make_scene,
    read_jsonl,
)
from tests.pipeline.serve.serving import COMMAND, Place, environment, serving
from tests.pipeline.service import DOOR, GATE, YARD
from tests.pipeline.small_camera import SmallCamera

RIGHT = [[0.4, 0.0], [1.0, 0.0], [1.0, 1.0], [0.4, 1.0]]
UPPER_EDGE = [[0.0, 0.3125], [1.0, 0.3125], [1.0, 0.40625], [0.0, 0.40625]]
"""Over the way of the square, whose upper edge is at 60 of 192 rows: 60 to 78."""
VISITOR = {"name": "visitor", "kind": "enter", "zone": "right"}
GATE_LINE = {"name": "gate", "kind": "line", "line": "middle"}
PARKED = {"name": "parked", "kind": "stationary", "zone": "right", "for_s": 0.5}


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The square walks into the right half, again each second."""
    return make_scene(
        tmp_path_factory.mktemp("clip") / "walk.mp4", num_frames=25, bframes=0, speed=6
    )


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The square stands where it is."""
    return make_scene(
        tmp_path_factory.mktemp("clip") / "stand.mp4", num_frames=25, bframes=0, speed=0
    )


@pytest.fixture
def place(tmp_path: Path, card_file: Path) -> Place:
    return Place(tmp_path, card_file)


def watched(clip: Path, *rules: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return {
        "source": str(clip),
        "zones": {"right": RIGHT, "all": [[0, 0], [1, 0], [1, 1], [0, 1]]},
        "lines": {"middle": [[0.4, 1.0], [0.4, 0.0]]},
        "rules": list(rules),
        **settings,
    }


def bright_box(jpeg: bytes) -> tuple[int, int, int, int]:
    """Where the square is in a picture: left, top, right, bottom."""
    rows, columns = np.nonzero(np.asarray(Image.open(io.BytesIO(jpeg)).convert("L")) > 150)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_an_event_is_kept_with_the_picture_of_its_moment_under_the_privacy_mask(
    place: Place, walk: Path
) -> None:
    place.write({YARD: watched(walk, VISITOR, privacy=[UPPER_EDGE])})
    with serving(place.settings) as service:
        service.wait(lambda: service.client.get("/readyz").status_code == 200)
        service.wait(lambda: service.client.get("/api/events").json()["events"])
        asked = service.client.get("/api/events", params={"camera": YARD, "kind": "enter"})
        assert asked.json()["events"][0]["rule"] == "visitor"
        assert b"sightline_frames_tracked_total" in service.client.get("/metrics").content
    event = place.events("enter")[0]
    assert (event.camera, event.rule, event.phase) == (YARD, "visitor", "end")
    assert event.snapshot is not None
    assert event.subject is not None
    left, top, right, bottom = event.subject.xyxy
    assert (left + right) / 2 > 0.4 * 320
    assert top == pytest.approx(60, abs=3)  # the detector saw what is masked
    seen = bright_box((place.folder / "snapshots" / event.snapshot).read_bytes())
    assert seen == pytest.approx((left, 78, right, bottom), abs=3)
    assert right - left == pytest.approx(SIZE, abs=3)


def test_without_pictures_events_have_none(place: Place, walk: Path) -> None:
    place.write({YARD: watched(walk, VISITOR)}, pictures=False, http=None)
    service = Service(place.settings)
    assert service.address == ""
    service.stop()
    service.run()
    place.write({YARD: watched(walk, VISITOR)}, pictures=False)
    with serving(place.settings) as running:
        running.wait(lambda: place.events("enter"))
    assert place.events("enter")[0].snapshot is None
    assert not list((place.folder / "snapshots").glob("*/*"))


def test_cameras_come_change_and_go_over_http_and_another_loses_no_frame(
    place: Place, walk: Path, stand: Path
) -> None:
    place.write({YARD: watched(walk)})
    with serving(place.settings) as service:
        service.wait_for_frames(YARD)
        client = service.client
        assert client.put(f"/api/cameras/{DOOR}", json=watched(walk)).status_code == 200
        service.wait_for_frames(DOOR)
        changed = watched(stand, max_fps=20)
        assert client.put(f"/api/cameras/{DOOR}", json=changed).status_code == 200
        service.wait(lambda: service.camera(DOOR)["source"] == str(stand))
        service.wait_for_frames(DOOR)
        assert client.delete(f"/api/cameras/{DOOR}").status_code == 200
        service.wait(lambda: DOOR not in service.status()["cameras"])
        for refused in (
            client.delete(f"/api/cameras/{DOOR}"),
            client.put(f"/api/cameras/{DOOR}", json={"source": "nowhere.mp4"}),
            client.put(f"/api/cameras/{YARD.upper()}", json=watched(walk)),
            client.put(f"/api/cameras/{DOOR}", json=watched(walk, VISITOR | {"zone": "x"})),
            client.put(f"/api/cameras/{DOOR}", json=watched(walk, VISITOR | {"classes": ["cow"]})),
        ):
            assert refused.status_code == 400
            assert "\n" not in refused.json()["error"]
        service.wait_for_frames(YARD)
        counters = service.camera(YARD)["counters"]
    assert [name for name, count in counters.items() if "drop" in name and count] == []
    assert counters["decoded"] - counters["tracked"] <= 64  # on their way: the window
    assert counters["late_packets"] == counters["reconnects"] == 0


def test_rules_that_change_hold_from_the_next_frame_and_the_stream_goes_on(
    place: Place, walk: Path
) -> None:
    place.write({YARD: watched(walk, PARKED)})
    with serving(place.settings) as service:
        service.wait_for_frames(YARD)
        before = service.camera(YARD)["counters"]["decoded"]
        place.write({YARD: watched(walk, GATE_LINE)})
        told = service.client.post("/api/reload").json()
        assert told["changed"] == [YARD]
        service.wait(lambda: len(place.events("line")) >= 2)
        place.write({YARD: watched(walk, PARKED)})
        assert service.client.post("/api/reload").status_code == 200
        service.wait_for_frames(YARD)
        num_told = len(place.events("line"))
        service.wait_for_frames(YARD, 32)
        counters = service.camera(YARD)["counters"]
        assert counters["reconnects"] == 0
        assert counters["decoded"] > before
        assert len(place.events("line")) <= num_told + 1  # one may have been on its way
    assert [event.count for event in place.events("line")][:2] == [1, 2]


def test_pictures_are_made_of_cameras_with_rules_alone_and_a_first_rule_brings_them(
    place: Place, walk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools: list[str] = []
    create = PoolDesk.create

    def noted(desk: PoolDesk, name: str, *args: Any, **settings: Any) -> PoolFile:
        pools.append(name)
        return create(desk, name, *args, **settings)

    monkeypatch.setattr(PoolDesk, "create", noted)

    def num_pictures(name: str) -> int:
        return int(service.camera(name)["counters"]["pictures"])

    place.write({YARD: watched(walk), DOOR: watched(walk, GATE_LINE)})
    with serving(place.settings) as service:
        service.wait(lambda: place.events("line") and service.tracked(YARD) > 5)
        assert num_pictures(DOOR) > 0
        assert num_pictures(YARD) == 0
        place.write({YARD: watched(walk, VISITOR), DOOR: watched(walk, GATE_LINE, PARKED)})
        told = service.client.post("/api/reload").json()
        assert told["changed"] == [YARD, DOOR]
        service.wait(lambda: place.events("enter"))
        assert num_pictures(YARD) > 0
    assert all(event.snapshot for event in place.events("enter"))
    made = {name for name in pools if name.endswith("/pictures")}
    assert made == {f"{DOOR}/pictures", f"{YARD}@2/pictures"}  # the door's stream went on
    assert all(event.snapshot for event in place.events("line"))


def test_a_fault_in_the_file_keeps_the_cameras_and_a_later_reload_undoes_what_http_told(
    place: Place, walk: Path
) -> None:
    place.write({YARD: watched(walk)})
    with serving(place.settings) as service:
        service.wait_for_frames(YARD)
        reload = service.client.post
        assert service.client.put(f"/api/cameras/{DOOR}", json=watched(walk)).status_code == 200
        for text, says in (
            ("cameras: [", "not valid YAML"),
            ("camera: {}", "camera: extra inputs"),
            (place.settings.read_text() + "classes: [person]\n", "cannot change while"),
        ):
            place.settings.write_text(text)
            answer = reload("/api/reload")
            assert (answer.status_code, says in answer.json()["error"]) == (400, True)
        service.wait_for_frames(DOOR)
        service.wait_for_frames(YARD)
        place.write({YARD: watched(walk), GATE: watched(walk)})
        changed = reload("/api/reload").json()
        assert (changed["added"], changed["removed"], changed["changed"]) == ([GATE], [DOOR], [])
        service.wait_for_frames(GATE)


def test_the_model_is_swapped_and_one_that_cannot_take_over_leaves_the_old(
    place: Place, walk: Path, card_file: Path
) -> None:
    place.write({YARD: watched(walk)})
    other = make_card_file(place.folder / "other.safetensors")
    strange = make_card_file(place.folder / "strange.safetensors", classes=("cat",))
    with serving(place.settings) as service:
        service.wait_for_frames(YARD)
        swap = service.client.post
        for path in (strange, place.folder / "none.safetensors", place.settings):
            refused = swap("/api/model", json={"weights": str(path)})
            assert refused.status_code == 400
            assert service.status()["model"]["weights"] == str(card_file)
        assert swap("/api/model", json={"weights": str(other)}).json()["model"] == str(other)
        service.wait_for_frames(YARD)
        assert service.status()["model"]["weights"] == str(other)
        assert swap("/api/reload").json()["model"] == str(card_file)  # the file is the truth
        assert service.camera(YARD)["counters"]["dropped_stage_died"] == 0


def test_what_rules_know_outlives_a_restart(place: Place, walk: Path, stand: Path) -> None:
    standing = watched(stand, PARKED | {"zone": "all"})
    cameras = {YARD: standing, DOOR: watched(walk, GATE_LINE)}
    place.write(cameras)
    with serving(place.settings) as service:
        service.wait(lambda: place.events("stationary") and len(place.events("line")) >= 2)
    counts = [event.count for event in place.events("line")]
    assert counts == list(range(1, len(counts) + 1))
    with serving(place.settings) as service:
        service.wait(lambda: len(place.events("line")) > len(counts))
        service.wait_for_frames(YARD, 20)
    counts = [event.count for event in place.events("line")]
    assert counts == list(range(1, len(counts) + 1))
    assert len(place.events("stationary")) == 1


@pytest.fixture
def camera(walk: Path) -> Iterator[SmallCamera]:
    camera = SmallCamera(walk)
    camera.on()
    yield camera
    camera.off()


def test_a_lost_camera_is_told_and_that_it_is_back_or_was_removed(
    place: Place, camera: SmallCamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "_LOST_AFTER_S", 0.0)
    place.write({"yard": {"source": camera.address()}}, source={"timeout_s": 2})

    def lost(phase: str) -> bool:
        events = place.events("camera-lost")
        return bool(events) and events[-1].phase == phase and service.tracked("yard") > 0

    with serving(place.settings) as service:
        service.wait_for_frames("yard")
        camera.off()
        service.wait(lambda: lost("start"))
        camera.on()
        service.wait(lambda: lost("end"))
        assert not place.events("camera-lost")[-1].interrupted
        camera.off()
        service.wait(lambda: lost("start"))
        assert service.client.delete("/api/cameras/yard").status_code == 200
        service.wait(lambda: place.events("camera-lost")[-1].phase == "end")
    last = place.events("camera-lost")[-1]
    assert (last.camera, last.interrupted) == ("yard", True)
    assert "bob" not in last.reason


def test_a_camera_that_has_to_give_up_frames_is_told(
    place: Place, walk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "_OVERLOAD_AFTER_S", 0.0)

    class SlowEngine(SquareEngine):
        def infer(self, images: np.ndarray) -> np.ndarray:
            time.sleep(0.5)
            return super().infer(images)

    def build(_: Any, *, image_hw: tuple[int, int], batch: int = 1) -> SquareEngine:
        return SlowEngine(image_hw, batch)

    place.write({YARD: watched(walk)}, window=4, source={"staleness_s": 0.2})
    with serving(place.settings, build) as service:
        service.wait(lambda: place.events("overload"))
    assert "of its frames are given up" in place.events("overload")[0].reason


def test_a_database_that_cannot_be_written_is_told_to_those_who_can_be(
    place: Place, walk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.telling.database._BUSY_S", 0.1)
    monkeypatch.setattr(service_module, "_DISK_AFTER_S", 0.0)
    told = place.folder / "events.jsonl"
    place.write({YARD: watched(walk, GATE_LINE)})
    tree = place.settings.read_text().replace("events:\n", f"events:\n  jsonl: {{path: {told}}}\n")
    place.settings.write_text(tree)

    def kinds() -> list[tuple[str, str]]:
        messages = [line["event"] for line in read_jsonl(told)] if told.exists() else []
        return [(event["kind"], event["phase"]) for event in messages]

    with serving(place.settings) as service:
        service.wait(lambda: ("line", "moment") in kinds())
        other = sqlite3.connect(place.folder / "events.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        service.wait(lambda: ("disk-full", "start") in kinds())
        other.execute("ROLLBACK")
        other.close()
        service.wait(lambda: ("disk-full", "end") in kinds())
    assert place.events("disk-full")[0].camera == ""


def test_a_second_service_at_one_address_is_refused_and_leaves_nothing_behind(
    place: Place, walk: Path
) -> None:
    place.write({YARD: watched(walk)})
    with serving(place.settings) as service:
        port = service.client.base_url.port
        second = Place(place.folder / "second", place.weights)
        second.folder.mkdir()
        second.write({}, http={"listen": f"127.0.0.1:{port}"})
        before = threading.active_count()
        with pytest.raises(PipelineError, match=r"http\.listen: 127\.0\.0\.1"):
            Service(second.settings)
        assert threading.active_count() == before
        assert not (second.folder / "events.db").exists()


def test_one_change_at_a_time_and_none_once_the_service_ends(
    place: Place, walk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "_TURN_S", 0.05)
    place.write({}, http=None)
    service = Service(place.settings)  # it does not run, so that a swap is never settled
    other = str(make_card_file(place.folder / "other.safetensors"))
    faults: list[str] = []

    def swap() -> None:
        with pytest.raises(EngineError) as refusal:
            service.swap_model(other)
        faults.append(str(refusal.value))

    swapping = threading.Thread(target=swap)
    swapping.start()

    def refusal() -> str:
        try:
            service.put_camera(YARD, watched(walk))
        except PipelineError as refused:
            return str(refused)
        service.remove_camera(YARD)
        return ""

    until_s = time.monotonic() + 10
    while "another change is under way" not in refusal():
        assert time.monotonic() < until_s
    service.stop()
    service.run()
    swapping.join(10)
    assert "the model before runs on" in faults[0]
    assert "the service is ending" in refusal()


class Command:
    """`sightline serve` in a process of its own."""

    def __init__(self, settings: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "serve", settings, *arguments],
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said: list[str] = []

    def wait_for(self, text: str) -> str:
        """The first line from here on that has a text."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if text in line:
                return line
        raise AssertionError(f"it did not say {text}: {''.join(self.said)}")

    def end(self) -> tuple[int, str]:
        """Its exit code, and what else it said."""
        _, rest = self.process.communicate(timeout=30)
        return self.process.returncode, rest


def test_sighup_reads_the_settings_again_and_sigterm_ends_with_0(place: Place, walk: Path) -> None:
    place.write({YARD: watched(walk)})
    command = Command(place.settings)
    try:
        address = command.wait_for("status at ").split("status at ")[1].split('"')[0]
        for broken in (True, False):
            place.write({YARD: watched(walk), DOOR: watched(walk)})
            if broken:
                place.settings.write_text("cameras: [")
            command.process.send_signal(signal.SIGHUP)
            line = command.wait_for("reloaded")
            assert ("not reloaded" in line) == broken
        assert set(httpx.get(f"{address}/api/status").json()["cameras"]) <= {YARD, DOOR}
        command.process.send_signal(signal.SIGTERM)
        assert command.end()[0] == 0
    finally:
        command.process.kill()
        command.process.communicate()


@pytest.fixture
def _command(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command in this process, whose signals and logs are given back."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    monkeypatch.setattr("pipeline.serve.cli.Logs.begin", lambda *_: None)
    monkeypatch.setattr(service_module, "build_engine", build_squares)
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("_command")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_during_the_start_ends_it_in_good_order(
    place: Place,
    walk: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    code: int,
) -> None:
    class Interrupted(Teller):
        def __init__(self, config: TellingConfig, cameras: Sequence[str]) -> None:
            super().__init__(config, cameras)
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(number)

    monkeypatch.setattr(service_module, "Teller", Interrupted)
    place.write({YARD: watched(walk)})
    assert sightline.main(["serve", str(place.settings)]) == code


@pytest.mark.usefixtures("_command")
@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"cameras": {"yard": {"source": "nowhere.mp4"}}}, 2, "cameras.yard.source: nowhere.mp4"),
        ({"model": {"weights": "nowhere.safetensors"}}, 2, "nowhere.safetensors"),
        ({"http": {"listen": "0.0.0.0:0"}}, 2, "give a token"),
        ({"supervision": {"restarts": 0}}, 1, "the engine is broken"),
    ],
)
def test_what_ends_a_service_is_one_line_and_an_exit_code(
    place: Place,
    walk: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    code: int,
    says: str,
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise PipelineError("the engine is broken")

    monkeypatch.setattr(service_module, "build_engine", broken)
    place.write(change.pop("cameras", {YARD: watched(walk)}), **change)
    assert sightline.main(["serve", str(place.settings)]) == code
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("sightline:")]
    assert len(lines) == 1
    assert says in lines[0]
