# SPDX-License-Identifier: Apache-2.0
"""What a collector keeps, and for how long."""

import sqlite3
from pathlib import Path

import pytest

from model.errors import ConfigError
from pipeline.fleet.config import FleetDatabaseConfig
from pipeline.fleet.database import FleetDatabase, Head, Message, Query


def make_message(number: int, num_bytes: int = 2) -> Message:
    head = Head(id=str(number), revision=0, camera="yard", kind="line")
    return Message(box="gate", head=head, body=b'"%s"' % (b"x" * (num_bytes - 2)))


def numbers_in(database: FleetDatabase) -> list[int]:
    return [entry.number for entry in database.page(Query(after=0, limit=1000))]


def test_what_is_too_old_is_removed_and_its_number_is_not_given_again(tmp_path: Path) -> None:
    database = FleetDatabase(FleetDatabaseConfig(path=tmp_path / "fleet.db"))
    assert database.keep([make_message(1), make_message(2)], [], now_s=10.0) == {"gate": 2}
    database.keep([make_message(3)], [], now_s=20.0)
    assert database.tidy(before_s=15.0) == 2
    assert database.tidy(before_s=15.0) == 0
    assert numbers_in(database) == [3]
    assert database.tidy(before_s=25.0) == 1
    database.keep([make_message(4)], [], now_s=30.0)
    assert numbers_in(database) == [4]
    assert database.boxes()["gate"].told == 4
    database.close()


def test_what_came_while_the_clock_was_ahead_keeps_nothing_after_it(tmp_path: Path) -> None:
    database = FleetDatabase(FleetDatabaseConfig(path=tmp_path / "fleet.db"))
    database.keep([make_message(number) for number in range(600)], [], now_s=1e9)
    database.keep([make_message(1000)], [], now_s=10.0)
    assert database.latest_s() == 1e9
    assert database.tidy(before_s=15.0) == 1
    assert len(numbers_in(database)) == 600
    database.close()


def test_the_oldest_is_removed_where_there_is_too_much(tmp_path: Path) -> None:
    database = FleetDatabase(FleetDatabaseConfig(path=tmp_path / "fleet.db", keep_mib=1))
    messages = [make_message(number, num_bytes=1500) for number in range(800)]
    database.keep(messages, [], now_s=10.0)
    assert database.tidy(before_s=0.0) == 500
    assert database.tidy(before_s=0.0) == 0
    assert numbers_in(database) == list(range(501, 801))
    database.close()


def test_nothing_of_a_commit_that_fails_is_kept(tmp_path: Path) -> None:
    database = FleetDatabase(FleetDatabaseConfig(path=tmp_path / "fleet.db"))
    bad = Message(box="gate", head=Head(id="a", revision=1 << 70, camera="", kind=""), body=b"1")
    with pytest.raises(OverflowError):
        database.keep([make_message(1), bad], [], now_s=10.0)
    assert numbers_in(database) == []
    assert database.keep([make_message(1)], [], now_s=10.0) == {"gate": 1}
    database.close()


def test_nothing_is_kept_in_a_file_that_was_taken_away(tmp_path: Path) -> None:
    database = FleetDatabase(FleetDatabaseConfig(path=tmp_path / "fleet.db"))
    (tmp_path / "fleet.db").unlink()
    with pytest.raises(sqlite3.OperationalError, match=r"was taken away; restart the collector"):
        database.keep([make_message(1)], [], now_s=10.0)
    database.close()


def test_a_database_of_a_later_version_is_refused(tmp_path: Path) -> None:
    config = FleetDatabaseConfig(path=tmp_path / "fleet.db")
    database = FleetDatabase(config)
    database._connection.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(ConfigError, match=r"version 99 of the database, made by a later Sightline"):
        FleetDatabase(config)
