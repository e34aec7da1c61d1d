# SPDX-License-Identifier: Apache-2.0
"""An update goes over to a version that does well, and back from any that does not."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

import sightline
from pipeline.box import backup, journal, updating
from pipeline.box.health import Limits
from pipeline.box.manifest import read_manifest, write_manifest
from pipeline.box.signing import make_pair, sign_bundle
from pipeline.errors import BundleRefused, UpdateFailed
from pipeline.telling.database import MIGRATIONS
from tests.pipeline.box.box import ROOT, Box, build_bundle


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path / "root", build_bundle(tmp_path / "1.0", "1.0"))
    try:
        made.manager.start()
        made.wait_for("1.0")
        yield made
    finally:
        made.close()


@pytest.fixture
def own_signals() -> Iterator[None]:
    """What the command does with signals ends with the test."""
    numbers = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell runs beside
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("own_signals")
def test_a_signed_update_runs_and_the_version_before_stays(
    box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = build_bundle(tmp_path / "bundle", "2.0", with_pip=True)
    secret, public = make_pair("maker", tmp_path)
    sign_bundle(bundle, secret)
    public.rename(box.layout.trusted / public.name)
    monkeypatch.setenv("SIGHTLINE_ROOT", str(box.root))
    arguments = ["update", str(bundle), "--watch-s", "0.3", "--service", str(box.init)]
    assert sightline.main(arguments) == 0
    assert "2.0 runs" in capsys.readouterr().out
    assert box.running() == "2.0"
    assert box.links() == ("2.0", "1.0")
    assert box.versions() == {"1.0", "2.0"}
    assert not box.layout.update_journal.exists()


def test_two_versions_are_kept_and_the_one_before_can_be_gone_back_to(
    box: Box, tmp_path: Path
) -> None:
    for version in ("2.0", "3.0"):
        box.updater().update(build_bundle(tmp_path / version, version), signed=False)
    assert box.versions() == {"2.0", "3.0"}
    assert box.links() == ("3.0", "2.0")
    assert [path.name for path in box.layout.backups.iterdir()] == ["3.0"]
    box.updater().update(tmp_path / "2.0", signed=False)
    assert box.running() == "2.0"
    assert box.links() == ("2.0", "3.0")


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "mode",
    [
        "bad-artefact",
        "crash",
        "never-ready",
        pytest.param("bad-migration", marks=SLOW),
        pytest.param("dies", marks=SLOW),
        pytest.param("blind", marks=SLOW),
    ],
)
def test_a_bad_version_ends_with_the_old_one_running_and_nothing_left(
    box: Box, tmp_path: Path, mode: str
) -> None:
    settings, events = box.layout.settings.read_bytes(), box.rows("SELECT * FROM events")
    limits = Limits(watch_s=1.2, ready_s=0.6, silent_s=0.5, poll_s=0.05)
    with pytest.raises(UpdateFailed, match=r"2\.0: "):
        box.updater(limits).update(build_bundle(tmp_path / "2.0", "2.0", mode), signed=False)
    box.wait_for("1.0")
    assert box.links() == ("1.0", None)
    assert box.versions() == {"1.0"}
    assert not box.layout.update_journal.exists()
    assert box.layout.settings.read_bytes() == settings
    assert box.rows("SELECT * FROM events") == events


def test_one_camera_that_gives_no_frames_any_more_is_enough_to_go_back(
    box: Box, tmp_path: Path
) -> None:
    bundle = build_bundle(tmp_path / "2.0", "2.0", "one-eyed")
    limits = Limits(watch_s=1.2, ready_s=4.0, silent_s=0.5, poll_s=0.05)
    with pytest.raises(UpdateFailed, match=r"gate gave frames before, and none for 0\.5 s; went"):
        box.updater(limits).update(bundle, signed=False)
    box.wait_for("1.0")


def test_what_is_installed_is_what_was_checked(box: Box, tmp_path: Path) -> None:
    """The bundle may lie where others can write, and change after it was looked at."""
    bundle = build_bundle(tmp_path / "2.0", "2.0")
    take = updating.take_files

    def take_and_change(*arguments: Any) -> None:
        take(*arguments)
        (bundle / "deploy/make_version.sh").write_text(f"touch {tmp_path}/evil; exit 1\n")
        (bundle / "manifest.json").write_text("{}")

    with patch.object(updating, "take_files", take_and_change):
        box.updater().update(bundle, signed=False)
    assert box.running() == "2.0"
    assert not (tmp_path / "evil").exists()
    assert not box.layout.taken.exists()


def test_a_rollback_over_a_changed_schema_loses_no_event(box: Box, tmp_path: Path) -> None:
    settings = box.layout.settings.read_bytes()
    bundle = build_bundle(tmp_path / "2.0", "2.0", "schema-record-crash")
    with pytest.raises(UpdateFailed, match="went back to 1"):
        box.updater().update(bundle, signed=False)
    assert box.layout.settings.read_bytes() == settings
    assert box.rows("PRAGMA user_version") == [(len(MIGRATIONS),)]
    assert box.rows("SELECT id FROM events ORDER BY at_s") == [("before",), ("2.0",)]
    assert box.rows("SELECT seq FROM outbox") == []  # what the new one had told is not told again
    assert (box.layout.state / "events.db.from-2.0").exists()


def test_a_rollback_over_the_same_schema_leaves_the_database_alone(
    box: Box, tmp_path: Path
) -> None:
    before = box.layout.database.stat().st_ino
    bundle = build_bundle(tmp_path / "2.0", "2.0", "record-crash")
    with pytest.raises(UpdateFailed):
        box.updater().update(bundle, signed=False)
    assert box.layout.database.stat().st_ino == before
    assert box.rows("SELECT id FROM events ORDER BY at_s") == [("before",), ("2.0",)]


def test_migrated_settings_and_database_stay_with_a_version_that_does_well(
    box: Box, tmp_path: Path
) -> None:
    box.updater().update(build_bundle(tmp_path / "2.0", "2.0", "schema"), signed=False)
    assert box.layout.settings.read_text().endswith("# as later versions want it\n")
    assert box.rows("PRAGMA user_version") == [(9,)]


@pytest.mark.usefixtures("own_signals")
def test_ctrl_c_while_it_watches_goes_back(box: Box, tmp_path: Path) -> None:
    def interrupt() -> None:
        while not (path.exists() and b"watching" in path.read_bytes()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    bundle = build_bundle(tmp_path / "2.0", "2.0")
    path = box.layout.update_journal
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(UpdateFailed, match="interrupted; went back"):
        box.updater(Limits(watch_s=60.0)).update(bundle, signed=False)
    box.wait_for("1.0")


def test_what_is_wrong_with_a_bundle_is_found_before_anything_is_touched(
    box: Box, tmp_path: Path
) -> None:
    bundle = build_bundle(tmp_path / "2.0", "2.0")
    update = box.updater().update
    with pytest.raises(BundleRefused, match="not signed"):
        update(bundle, signed=True)
    with pytest.raises(BundleRefused, match="runs already"):
        update(box.first, signed=False)
    (bundle / "deploy/recover.sh").write_text("rm -rf /\n")
    with pytest.raises(BundleRefused, match=r"recover\.sh"):
        update(bundle, signed=False)
    manifest = read_manifest(box.first)
    write_manifest(box.first, type(manifest)(
        version="3.0", arch="sparc", python="3.11", created="", files=manifest.files))  # fmt: skip
    with pytest.raises(BundleRefused, match="made for sparc"):
        update(box.first, signed=False)
    assert box.links() == ("1.0", None)
    assert box.versions() == {"1.0"}


BOUNDARIES = (
    *((journal, name) for name in ("replace_file", "remove_file")),
    *((updating, name) for name in ("replace_file", "replace_link", "remove_file")),
    *((backup, name) for name in ("replace_file", "sync", "_settle")),
)
"""What an update writes with."""


def update_until(box: Box, bundle: Path, limit: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Update in a process that kills itself before or after a write; whether it came to that."""
    count = 0

    def at_boundary() -> None:
        nonlocal count
        count += 1
        if count == limit:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(function: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            at_boundary()
            function(*arguments)
            at_boundary()

        return call

    child = os.fork()
    if child == 0:
        try:
            for module, name in BOUNDARIES:
                monkeypatch.setattr(module, name, around(getattr(module, name)))
            box.updater().update(bundle, signed=False)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def check_recovers(box: Box, settings: bytes) -> None:
    current = box.layout.current / "venv/bin/sightline"
    assert subprocess.run([current, "doctor"]).returncode == 0  # what boots, starts
    if box.layout.update_journal.exists():
        box.updater().recover(restart=True)
        box.wait_for("1.0")
        assert box.links() == ("1.0", None)
        assert box.versions() == {"1.0"}
        assert box.layout.settings.read_bytes() == settings
        assert box.rows("PRAGMA user_version") == [(len(MIGRATIONS),)]
        assert ("before",) in box.rows("SELECT id FROM events")
    assert box.updater().recover(restart=True) is None  # twice is once


def update_until_step(box: Box, bundle: Path, step: str) -> None:
    """Update in a process that kills itself when it has begun a step."""
    enter = journal.Journal.enter

    def enter_and_die(written: journal.Journal, state: journal.UpdateState) -> None:
        enter(written, state)
        if state.step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        try:
            with patch.object(journal.Journal, "enter", enter_and_die):
                box.updater().update(bundle, signed=False)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    state = box.updater()._journal.read()
    assert state is not None
    assert state.step == step


@pytest.mark.parametrize("step", ["stopping", "switching", "rolling-back"])
def test_kill_9_at_a_step_is_undone(box: Box, tmp_path: Path, step: str) -> None:
    update_until_step(box, build_bundle(tmp_path / "2.0", "2.0", "schema-record-crash"), step)
    check_recovers(box, box.settings)


def test_kill_9_while_the_backup_goes_leaves_the_database(box: Box, tmp_path: Path) -> None:
    """A backup that is half gone does not say that there was no database."""
    update_until_step(box, build_bundle(tmp_path / "2.0", "2.0", "schema"), "watching")
    kept = box.layout.database_backups / "2.0"
    backup.restore_database(kept, box.layout.database, "2.0")
    (kept / "events.db").unlink()
    check_recovers(box, box.settings)


def test_the_old_version_is_started_though_something_cannot_be_put_back(
    box: Box, tmp_path: Path
) -> None:
    fault = sqlite3.OperationalError("disk I/O error")
    with (
        patch.object(updating.backup, "restore_settings", side_effect=fault),
        pytest.raises(UpdateFailed, match="not wholly back"),
    ):
        box.updater().update(build_bundle(tmp_path / "2.0", "2.0", "crash"), signed=False)
    box.wait_for("1.0")
    check_recovers(box, box.settings)
    assert not box.layout.update_journal.exists()


def test_what_nobody_thought_of_ends_with_the_old_version_running(box: Box, tmp_path: Path) -> None:
    fault = sqlite3.OperationalError("database or disk is full")
    with (
        patch.object(updating.backup, "keep_database", side_effect=fault),
        pytest.raises(UpdateFailed, match="disk is full; went back to 1"),
    ):
        box.updater().update(build_bundle(tmp_path / "2.0", "2.0"), signed=False)
    box.wait_for("1.0")
    assert box.links() == ("1.0", None)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "least"), [("good", 18), ("schema-record-crash", 28)])
def test_kill_9_at_every_step_leaves_a_version_that_boots_and_recovers(
    box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, least: int
) -> None:
    bundle = build_bundle(tmp_path / "2.0", "2.0", mode)
    kills = 0
    while update_until(box, bundle, kills + 1, monkeypatch):
        kills += 1
        check_recovers(box, box.settings)
        if box.links()[0] == "2.0":  # killed when it was over
            break
    assert kills >= least


def test_a_box_that_boots_amid_an_update_goes_back_before_the_service_starts(
    box: Box, tmp_path: Path
) -> None:
    """As systemd does it: recover.sh of the new version has the old one undo it."""
    update_until_step(box, build_bundle(tmp_path / "2.0", "2.0"), "watching")
    box.manager.stop()
    assert box.links() == ("2.0", "1.0")
    sightline_of_old = box.layout.version("1.0") / "venv/bin/sightline"
    sightline_of_old.write_text(f'#!/bin/sh\nexec {sys.executable} -m sightline "$@"\n')
    recover = ROOT / "deploy/recover.sh"
    environment = {**os.environ, "SIGHTLINE_ROOT": str(box.root), "PYTHONPATH": str(ROOT)}
    subprocess.run(["sh", recover], env=environment, check=True)
    assert box.links() == ("1.0", None)
    assert not box.layout.update_journal.exists()
    assert box.running() is None  # systemd starts it next
