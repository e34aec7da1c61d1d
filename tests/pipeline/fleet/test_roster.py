# SPDX-License-Identifier: Apache-2.0
"""What is known of boxes, and when one is lost."""

import logging
import time
from pathlib import Path

import pytest

from model.errors import ConfigError
from pipeline.fleet.allowed import Allowed
from pipeline.fleet.database import Kept
from pipeline.fleet.roster import Roster
from pipeline.transport.curve import make_keys


def state_of(roster: Roster, name: str = "gate") -> str:
    return {box.name: box.state for box in roster.boxes()}[name]


def test_a_silent_box_is_lost_and_comes_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    roster = Roster({}, lost_after_s=60)
    roster.allow({"aa": "gate"})
    assert state_of(roster) == "never-seen"
    roster.connect("gate", stands=True)
    roster.hear("gate")
    assert state_of(roster) == "connected"
    now_s = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now_s + 61)
    roster.look()
    roster.look()
    assert state_of(roster) == "lost"
    roster.hear("gate")
    assert state_of(roster) == "connected"
    said = [record.getMessage() for record in caplog.records]
    assert said == ["gate: lost: not heard for 60 s", "gate: connected"]


def test_a_box_heard_by_a_run_before_has_the_time_to_come_back() -> None:
    roster = Roster({"gate": Kept(heard_s=1.0, told=3, report=b"{")}, lost_after_s=60)
    assert state_of(roster) == "revoked"
    roster.allow({"aa": "gate"})
    assert state_of(roster) == "away"
    assert (roster.boxes()[0].told, roster.boxes()[0].report) == (3, None)


def test_the_folder_is_read_again_when_it_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("gate", "yard"):
        make_keys(name, tmp_path)
    allowed = Allowed(tmp_path)
    assert sorted(allowed.names.values()) == ["gate", "yard"]
    assert not allowed.refresh()
    (tmp_path / "half.pub").write_text("public: 12")
    make_keys("door", tmp_path)
    assert not allowed.refresh()
    assert sorted(allowed.names.values()) == ["door", "gate", "yard"]
    assert "half.pub: holds no public key" in caplog.text
    (tmp_path / "gate.pub").rename(tmp_path / "barn.pub")
    assert allowed.refresh()
    assert sorted(allowed.names.values()) == ["barn", "door", "yard"]
    (tmp_path / "copy.pub").write_text((tmp_path / "yard.pub").read_text())
    assert allowed.refresh()  # the first by name counts, so the key has another one now
    assert "holds the key of copy" in caplog.text


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no folder .boxes.; make it and copy the .pub"):
        Allowed(tmp_path / "none")
