# SPDX-License-Identifier: Apache-2.0
"""What a service manager is told, over real sockets."""

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.serve import service as service_module
from pipeline.serve.notify import Notifier
from pipeline.serve.service import Service
from tests.pipeline.serve.manager import Manager, listening
from tests.pipeline.serve.serving import COMMAND, Place, environment

WATCHDOG_S = 0.4


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with listening(str(tmp_path / "notify")) as manager:
        yield manager


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_the_first_message_says_that_it_serves_the_next_that_it_lives(
    tmp_path: Path, kind: str
) -> None:
    address = str(tmp_path / "notify") if kind == "path" else f"@sightline-test-{os.getpid()}"
    with listening(address) as manager:
        notifier = Notifier(address, watchdog_s=0.04)
        notifier.serving()
        assert manager.hear(1) == "READY=1\nWATCHDOG=1"
        began_s = time.monotonic()
        while (message := manager.hear(0.001)) is None:
            notifier.serving()
        assert message == "WATCHDOG=1"
        assert time.monotonic() - began_s > 0.005  # a quarter of the time, not at each call


def test_without_a_watchdog_only_the_first_is_told(manager: Manager, tmp_path: Path) -> None:
    notifier = Notifier(str(tmp_path / "notify"))
    for _ in range(3):
        notifier.serving()
    notifier.stopping()
    assert [manager.hear(1), manager.hear(1)] == ["READY=1\nWATCHDOG=1", "STOPPING=1"]


def test_a_status_is_told_once_and_in_one_line(manager: Manager, tmp_path: Path) -> None:
    notifier = Notifier(str(tmp_path / "notify"))
    for text in ("one", "one", "two\nMAINPID=1"):
        notifier.status(text)
    assert [manager.hear(1), manager.hear(1)] == ["STATUS=one", "STATUS=two MAINPID=1"]


def test_a_reload_is_told_with_its_time_and_its_end_also_where_it_fails(
    manager: Manager, tmp_path: Path
) -> None:
    notifier = Notifier(str(tmp_path / "notify"))
    before = time.monotonic_ns() // 1000
    with pytest.raises(RuntimeError), notifier.reloading():
        raise RuntimeError
    first, usec = (manager.hear(1) or "").split("\nMONOTONIC_USEC=")
    assert first == "RELOADING=1"
    assert before <= int(usec) <= time.monotonic_ns() // 1000
    assert manager.hear(1) == "READY=1"


def test_it_is_taken_from_the_environment_so_that_children_do_not_have_it(tmp_path: Path) -> None:
    found = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "4000000", "HOME": "/"}
    found["WATCHDOG_PID"] = "1"
    with listening(found["NOTIFY_SOCKET"]) as manager:
        Notifier.take_from(found).serving()
        assert manager.hear(1) is not None
    assert found == {"HOME": "/"}


def test_nothing_is_told_and_nothing_fails_where_nobody_listens(tmp_path: Path) -> None:
    for notifier in (Notifier.take_from({}), Notifier(str(tmp_path / "gone"), watchdog_s=1)):
        notifier.serving()
        notifier.status("well")
        with notifier.reloading():
            pass
        notifier.stopping()


@pytest.fixture
def place(tmp_path: Path, card_file: Path) -> Place:
    return Place(tmp_path, card_file)


@contextmanager
def served(place: Place) -> Iterator[Service]:
    """A service that tells the manager, in a thread."""
    service = Service(place.settings, manager=Notifier(str(place.folder / "notify"), WATCHDOG_S))
    thread = threading.Thread(target=service.run)
    thread.start()
    try:
        yield service
    finally:
        service.stop()
        thread.join(20)
        assert not thread.is_alive()


def test_a_service_is_ready_though_its_camera_is_down_and_says_when_it_reloads_and_ends(
    place: Place, manager: Manager
) -> None:
    place.write({"yard": {"source": "rtsp://127.0.0.1:9/none"}})
    with served(place) as service:
        assert manager.hear(20) == "READY=1\nWATCHDOG=1"
        assert manager.wait_for("STATUS=") == "STATUS=0 of 1 cameras live, 0 frames/s"
        manager.wait_for("WATCHDOG=1")
        service.reload_soon()
        manager.wait_for("RELOADING=1\nMONOTONIC_USEC=")
        manager.wait_for("READY=1")
    manager.wait_for("STOPPING=1")


def test_the_watchdog_is_fed_no_more_while_the_supervisor_hangs(
    place: Place, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "_STUCK_S", WATCHDOG_S)
    place.write({}, http=None)
    goes_on = threading.Event()
    with served(place) as service:
        manager.wait_for("WATCHDOG=1")
        monkeypatch.setattr(service, "_follow_reloads", goes_on.wait)
        while manager.hear(2 * WATCHDOG_S) is not None:
            pass
        try:
            assert "has not come round" in service.faults()[0]
        finally:
            goes_on.set()
        manager.wait_for("WATCHDOG=1")


def test_the_command_tells_by_the_variable_and_hands_it_to_no_process(
    place: Place, manager: Manager
) -> None:
    place.write({}, http=None, placement="processes")
    told = {"NOTIFY_SOCKET": str(place.folder / "notify"), "WATCHDOG_USEC": "1000000"}
    process = subprocess.Popen([*COMMAND, "serve", place.settings], env=environment() | told)
    try:
        assert manager.hear(30) == "READY=1\nWATCHDOG=1"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert children
        for child in children:
            assert b"NOTIFY_SOCKET" not in Path(f"/proc/{child}/environ").read_bytes()
        process.terminate()
        manager.wait_for("STOPPING=1")
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
