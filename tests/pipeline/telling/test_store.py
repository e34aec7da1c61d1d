# SPDX-License-Identifier: Apache-2.0
import sqlite3
from contextlib import closing

import pytest

from model.errors import ConfigError
from pipeline.telling import outbox
from pipeline.telling.database import (
    MIGRATIONS,
    loose_transaction,
    open_database,
    reserve,
    salvage,
    transaction,
)
from pipeline.telling.letters import decode_event, encode_event
from pipeline.telling.store import (
    History,
    Page,
    Query,
    ends_of_interrupted,
    forget,
    keep,
    last_row,
    latest,
    shift,
)
from tests.pipeline.telling.builders import make_event, then


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new/events.db"


def keep_all(path, events):
    with closing(open_database(path)) as connection, transaction(connection):
        return [keep(connection, event, encode_event(event), event.at_s) for event in events]


def ids(page: Page):
    return [int(event.id, 16) for event in page.events]


def test_an_event_is_kept_as_its_last_message_left_it(path):
    start = make_event(1, phase="start")
    end = then(start, phase="end", ended_s=5.0)
    assert keep_all(path, [start, end]) == [True, True]
    assert History(path).event(start.id) == end


def test_a_message_that_is_kept_already_changes_nothing(path):
    start = make_event(1, phase="start")
    update = then(start, phase="update")
    assert keep_all(path, [start, update]) == [True, True]
    assert keep_all(path, [start, update]) == [False, False]
    assert History(path).event(start.id) == update


def test_pages_go_from_the_latest_to_the_first(path):
    keep_all(path, [make_event(number) for number in range(7)])
    history, after, seen = History(path), None, []
    for _ in range(3):
        page = history.page(Query(limit=3, after=after))
        seen.append(ids(page))
        after = page.next
    assert seen == [[6, 5, 4], [3, 2, 1], [0]]
    assert after is None


def test_events_that_begin_at_once_are_on_one_page_each(path):
    keep_all(path, [make_event(number, started_s=5.0) for number in range(4)])
    first = History(path).page(Query(limit=2))
    second = History(path).page(Query(limit=2, after=first.next))
    assert ids(first) + ids(second) == [3, 2, 1, 0]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (Query(camera="yard"), [2, 0]),
        (Query(kind="dwell"), [3, 2]),
        (Query(camera="yard", kind="dwell"), [2]),
        (Query(since_s=1001.0, until_s=1003.0), [2, 1]),
        (Query(camera="'; DROP TABLE events"), []),
    ],
    ids=["camera", "kind", "both", "time", "no such camera"],
)
def test_a_page_holds_what_is_asked_for(path, query, expected):
    keep_all(
        path,
        [
            make_event(0),
            make_event(1, camera="door"),
            make_event(2, kind="dwell"),
            make_event(3, camera="door", kind="dwell"),
        ],
    )
    assert ids(History(path).page(query)) == expected


def test_a_file_of_version_1_is_brought_up_to_date_with_its_rows(path):
    path.parent.mkdir()
    event = make_event(3)
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.execute("PRAGMA auto_vacuum = INCREMENTAL")
        for statement in MIGRATIONS[0]:
            old.execute(statement)
        old.execute("PRAGMA application_id = 0x534C4556")
        old.execute("PRAGMA user_version = 1")
        body = encode_event(event)
        columns = (event.id, 0, event.camera, event.kind, event.started_s, 7.0, False, None, body)
        old.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", columns)
        row = ("webhook a", 4, event.id, 0, 1.0, b"body")
        old.execute("INSERT INTO outbox VALUES (?, ?, ?, ?, ?, ?)", row)
    with closing(open_database(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert connection.execute("SELECT * FROM outbox").fetchall() == [(*row, 0)]
        assert latest(connection) == 7.0
    assert History(path).event(event.id) == event


def test_a_later_version_is_refused_in_one_line_and_left_as_it_is(path):
    open_database(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as later:
        later.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    before = path.read_bytes()
    with pytest.raises(
        ConfigError, match=r"version 4 .* later Sightline; this one knows 3"
    ) as told:
        open_database(path)
    assert "\n" not in str(told.value)
    assert path.read_bytes() == before


def test_a_database_of_something_else_is_refused(path):
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE cats (name)")
    with pytest.raises(ConfigError, match="a database of something else"):
        open_database(path)


def test_a_file_that_is_no_database_is_refused(path):
    path.parent.mkdir()
    path.write_bytes(b"once upon a time " * 100)
    with pytest.raises(ConfigError, match="not a database"):
        open_database(path)


def test_a_folder_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot make its folder"):
        open_database(tmp_path / "file/events.db")


def test_a_second_program_is_kept_from_the_file(tmp_path):
    reserve(tmp_path / "events.db")
    with pytest.raises(ConfigError, match="in use by another Sightline"):
        reserve(tmp_path / "events.db")


def test_old_events_are_removed_and_their_snapshots_named(path):
    keep_all(path, [make_event(n, at_s=float(n), snapshot=f"{n}.jpg") for n in range(4)])
    with closing(open_database(path)) as connection:
        assert forget(connection, before_s=2.0, most_bytes=1 << 30) == ["0.jpg", "1.jpg"]
    assert ids(History(path).page(Query())) == [3, 2]


def test_too_many_bytes_take_the_oldest_events_and_make_the_file_smaller(path):
    events = [make_event(n, at_s=float(n), reason="x" * 1000) for n in range(3000)]
    keep_all(path, events)
    with closing(open_database(path)) as connection:
        before = path.stat().st_size
        assert before > 3_000_000
        for _ in range(2):
            forget(connection, before_s=0.0, most_bytes=1 << 20)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        left = connection.execute("SELECT count(*) FROM events").fetchone()[0]
    assert 400 < left < 1000
    assert ids(History(path).page(Query(limit=1))) == [2999]
    assert path.stat().st_size < 1.3 * (1 << 20)


def test_what_receivers_wait_for_and_what_is_open_costs_no_event(path):
    """An outage fills the file: it must not empty the history."""
    events = [make_event(n, at_s=float(n), reason="x" * 1000) for n in range(100)]
    keep_all(path, [make_event(500, at_s=0.0, phase="start"), *events])
    with closing(open_database(path)) as connection:
        with transaction(connection):
            for number in range(3000):
                row = outbox.Row(seq=number, key=(str(number), 0), body=b"y" * 1000)
                outbox.add(connection, ["a"], row, put_s=0.0)
        forget(connection, before_s=0.0, most_bytes=1 << 20)
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (101,)
        forget(connection, before_s=1000.0, most_bytes=1 << 20)
        assert connection.execute("SELECT id FROM events").fetchall() == [(f"{500:032x}",)]


def test_an_open_event_that_cannot_be_read_keeps_nobody_from_starting(path, caplog):
    keep_all(path, [make_event(1, phase="start"), make_event(2, phase="start")])
    with closing(open_database(path)) as connection:
        connection.execute("UPDATE events SET body = '{}' WHERE id = ?", (f"{1:032x}",))
        ((end, _),) = ends_of_interrupted(connection)
    assert end.id == f"{2:032x}"
    assert "stays open" in caplog.text


def test_an_event_of_a_kind_that_only_a_later_version_knows_can_be_read():
    event = make_event(1)
    told = encode_event(event).replace(event.kind.encode(), b"teleport")
    assert decode_event(told).kind == "teleport"


def test_nothing_that_lies_there_is_touched_before_the_copy_is_whole(path):
    keep_all(path, [make_event(1)])
    old = open_database(path)
    old.close()  # gives nothing any more
    before = path.read_bytes()
    with pytest.raises(sqlite3.Error):
        salvage(old, path)
    assert path.read_bytes() == before
    assert list(path.parent.glob("*replaced*")) == []


def test_events_of_a_clock_that_was_behind_are_moved_to_when_they_were(path):
    keep_all(path, [make_event(1, at_s=5.0)])
    with closing(open_database(path)) as connection:
        before = last_row(connection)
        keep_all(path, [make_event(2, at_s=6.0), make_event(1, at_s=6.0)])
        shift(connection, 100.0, after=before)
        assert latest(connection) == 106.0
        assert forget(connection, before_s=50.0, most_bytes=1 << 30) == []
    assert ids(History(path).page(Query())) == [2]


def test_events_without_an_end_are_ended_as_of_when_last_heard_of(path):
    start = make_event(1, phase="start", at_s=10.0)
    update = then(start, phase="update", at_s=12.0)
    ended = make_event(2, phase="start")
    keep_all(path, [start, update, ended, then(ended, phase="end"), make_event(3)])
    with closing(open_database(path)) as connection:
        ((end, _),) = ends_of_interrupted(connection)
    assert (end.id, end.revision, end.phase) == (start.id, 2, "end")
    assert end.interrupted
    assert (end.ended_s, end.at_s) == (12.0, 12.0)


def test_a_commit_waits_for_the_disk_and_a_loose_one_does_not(path):
    full, normal = 2, 1
    with closing(open_database(path)) as connection:

        def synchronous() -> int:
            ((value,),) = connection.execute("PRAGMA synchronous").fetchall()
            return value

        with transaction(connection):
            assert synchronous() == full
        with loose_transaction(connection):
            assert synchronous() == normal
        with pytest.raises(ZeroDivisionError), loose_transaction(connection):
            raise ZeroDivisionError
        assert synchronous() == full
        assert connection.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
