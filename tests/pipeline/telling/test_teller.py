# SPDX-License-Identifier: Apache-2.0
"""The whole of it: what is promised in outages, and nothing lost or doubled in silence."""

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path
from unittest.mock import patch

import msgspec
import pytest

from model.errors import ConfigError
from pipeline.telling import database, journal
from pipeline.telling.config import TellingConfig
from pipeline.telling.store import Query
from pipeline.telling.teller import Teller
from pipeline.telling.webhook import WebhookReceiver
from tests.pipeline.telling.builders import PERSON, make_config, make_event, then, wait_until
from tests.pipeline.telling.http_receiver import HttpReceiver

ROOT = Path(__file__).parents[3]


def webhook(server: HttpReceiver, name: str = "a", **fields: object) -> dict[str, object]:
    return {"name": name, "url": server.url, "timeout_s": 0.3, **fields}


@contextmanager
def telling(config: TellingConfig, close_within_s: float = 5.0):
    teller = Teller(config)
    try:
        yield teller
    finally:
        teller.close(close_within_s)


@pytest.fixture
def server():
    with HttpReceiver() as server:
        yield server


def keys(*numbers: int) -> list[tuple[str, int]]:
    return [(f"{number:032x}", 0) for number in numbers]


def test_an_event_reaches_the_database_and_every_receiver(tmp_path, server):
    config = make_config(
        tmp_path, webhooks=[webhook(server)], jsonl={"path": tmp_path / "events.jsonl"}
    )
    event = make_event(1, subject=PERSON)
    with telling(config) as teller:
        teller.tell(event)
        assert teller.flush(5)
        assert teller.history.event(event.id) == event
        assert teller.history.page(Query()).events == (event,)
    line = msgspec.json.decode((tmp_path / "events.jsonl").read_bytes())
    assert line == server.requests[0].told
    assert msgspec.convert(line["event"], type(event)) == event


def test_an_event_waits_for_the_disk_before_it_is_told_and_a_confirmation_does_not(
    tmp_path, server, monkeypatch
):
    commits: list[tuple[str, int]] = []

    def noted(kind):
        @contextmanager
        def work(connection):
            with getattr(database, kind)(connection):
                yield
            commits.append((kind, len(server.requests)))

        return work

    with telling(make_config(tmp_path, webhooks=[webhook(server)])) as teller:
        assert teller.flush(5)
        for kind in ("transaction", "loose_transaction"):
            monkeypatch.setattr(journal, kind, noted(kind))
        teller.tell(make_event(1))
        wait_until(lambda: len(commits) == 2)
    assert commits == [("transaction", 0), ("loose_transaction", 1)]


def test_a_receiver_is_told_what_it_wants_to_know(tmp_path, server):
    config = make_config(
        tmp_path, webhooks=[webhook(server, cameras=["yard"], kinds=["line", "dwell"])]
    )
    with telling(config) as teller:
        for number, (camera, kind) in enumerate(
            [("yard", "line"), ("door", "line"), ("yard", "enter"), ("", "line"), ("yard", "dwell")]
        ):
            teller.tell(make_event(number, camera=camera, kind=kind))
    assert server.keys == keys(0, 4)


@pytest.mark.parametrize("failure", [500, 429, "hang", "drop", "garbage"])
def test_a_receiver_that_fails_gets_everything_in_order_and_repeats_are_marked(
    tmp_path, server, failure
):
    server.answers = [200, failure, failure, 200, 200]
    with telling(make_config(tmp_path, webhooks=[webhook(server)])) as teller:
        for number in range(3):
            teller.tell(make_event(number))
        wait_until(lambda: teller.statistics().receivers["webhook a"].sent == 3)
        assert teller.statistics().receivers["webhook a"].retried == 1
    assert server.keys == keys(0, 1, 1, 1, 2)
    assert [request.told["retry"] for request in server.requests] == [
        False,
        False,
        True,
        True,
        False,
    ]


def test_a_refused_event_is_parked_and_the_next_one_follows(tmp_path, server):
    config = make_config(tmp_path, webhooks=[webhook(server)])
    server.answers = [400, 200]
    with telling(config) as teller:
        teller.tell(make_event(1))
        teller.tell(make_event(2))
        wait_until(lambda: teller.statistics().receivers["webhook a"].sent == 1)
        found = teller.statistics().receivers["webhook a"]
        assert (found.parked, found.last_error) == (1, "answers 400")
    assert server.keys == keys(1, 2)
    with telling(config) as teller:  # the settings may have been mended
        wait_until(lambda: len(server.keys) == 3)
    assert server.keys[2:] == keys(1)
    assert server.requests[2].told["retry"]


def test_a_dead_receiver_slows_nothing_down(tmp_path, server):
    dead = HttpReceiver()
    dead.always = "hang"
    config = make_config(
        tmp_path, webhooks=[webhook(dead, "dead", timeout_s=30.0), webhook(server)]
    )
    with telling(config, close_within_s=0.5) as teller:
        began_s = time.monotonic()
        for number in range(500):
            teller.tell(make_event(number))
        told_s = time.monotonic() - began_s
        wait_until(lambda: len(server.keys) == 500)
        waiting = teller.statistics().receivers["webhook dead"].waiting
        closing_s = time.monotonic()
    assert told_s < 1.0
    assert waiting == 500
    assert time.monotonic() - closing_s < 3.0
    dead.close()


def test_what_a_receiver_missed_is_told_by_the_next_run_and_marked(tmp_path):
    away = HttpReceiver()
    config = make_config(tmp_path, webhooks=[webhook(away)])
    away.close()
    with telling(config) as teller:
        for number in range(3):
            teller.tell(make_event(number))
    with HttpReceiver(port=away.port) as back, telling(config) as teller:
        teller.tell(make_event(3))
        wait_until(lambda: len(back.keys) == 4)
        assert back.keys == keys(0, 1, 2, 3)
        assert [request.told["retry"] for request in back.requests] == [True, True, True, False]


def test_a_receiver_that_left_the_settings_is_forgotten(tmp_path, server):
    server.always = 500
    with telling(make_config(tmp_path, webhooks=[webhook(server)])) as teller:
        teller.tell(make_event(1))
    server.always = 200
    with telling(make_config(tmp_path)):
        pass
    with telling(make_config(tmp_path, webhooks=[webhook(server)])) as teller:
        teller.tell(make_event(2))
    assert server.keys[-1:] == keys(2)
    assert teller.statistics().receivers["webhook a"].sent == 1


def test_an_outbox_that_is_full_drops_the_oldest_and_counts_them(tmp_path, server, monkeypatch):
    monkeypatch.setattr("pipeline.telling.journal.CHECKPOINT_S", 0.05)
    server.always = 500
    config = make_config(
        tmp_path,
        webhooks=[webhook(server)],
        outbox={"longest_pause_s": 0.05, "max_messages": 5},
    )
    with telling(config) as teller:
        for number in range(20):
            teller.tell(make_event(number))
        wait_until(lambda: teller.statistics().receivers["webhook a"].dropped == 15)
        server.always = 200
        wait_until(lambda: teller.statistics().receivers["webhook a"].sent == 5)
    assert server.keys[-5:] == keys(15, 16, 17, 18, 19)


def test_a_full_disk_loses_no_event_and_says_so_once(tmp_path, server, caplog):
    """The fault is SQLite's own `database or disk is full`; what is told goes out all the same."""
    config = make_config(tmp_path, webhooks=[webhook(server)])
    with telling(config) as teller:
        teller.tell(make_event(0))
        assert teller.flush(5)
        connection = teller._journal._connection
        connection.execute("PRAGMA max_page_count = 1")
        filler = "x" * 100_000  # more than the pages at hand
        with caplog.at_level(logging.WARNING):
            for number in range(1, 6):
                teller.tell(make_event(number, reason=filler))
            wait_until(lambda: len(server.keys) == 6)
            assert not teller.statistics().writable
            assert teller.statistics().waiting == 5
            connection.execute("PRAGMA max_page_count = 100000")
            assert teller.flush(10)
        assert teller.statistics().writable
        assert teller.statistics().kept == 6
    said = [record.message for record in caplog.records if "events.db" in record.message]
    assert len(said) == 2
    assert "database or disk is full" in said[0]
    assert "can be written again" in said[1]
    assert len(teller.history.page(Query()).events) == 6
    assert server.keys == keys(0, 1, 2, 3, 4, 5)


def test_a_removed_folder_comes_back_with_all_it_held(tmp_path, server):
    config = make_config(tmp_path, webhooks=[webhook(server)])
    folder = config.database.path.parent
    server.always = 500
    with telling(config) as teller:
        for number in range(3):
            teller.tell(make_event(number))
        assert teller.flush(5)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        folder.touch()  # and cannot be made again
        teller.tell(make_event(3))
        wait_until(lambda: not teller.statistics().writable)
        folder.unlink()
        assert teller.flush(10)
        assert len(teller.history.page(Query()).events) == 4
        server.always = 200
        wait_until(lambda: set(keys(0, 1, 2, 3)) <= set(server.keys[-4:]))
    assert teller.statistics().lost == 0


@pytest.mark.parametrize("from_byte", [100, 4096], ids=["its schema", "its rows"])
def test_a_damaged_database_is_set_aside(tmp_path, from_byte):
    config = make_config(tmp_path)
    with telling(config) as teller:
        for number in range(200):
            teller.tell(make_event(number))
    path = config.database.path
    with path.open("r+b") as file:
        file.seek(from_byte)
        file.write(b"\xa5" * (path.stat().st_size - 8192))
    with telling(config) as teller:
        teller.tell(make_event(1000))
        assert teller.flush(10)
        assert [event.id for event in teller.history.page(Query()).events] == [keys(1000)[0][0]]
    assert list(path.parent.glob("events.db.damaged-*"))


def test_a_database_that_is_replaced_keeps_its_events_and_the_other_file(tmp_path, server):
    other = make_config(tmp_path / "other")
    with telling(other) as teller:
        teller.tell(make_event(1))
    config = make_config(tmp_path, webhooks=[webhook(server)])
    path = config.database.path
    with telling(config) as teller:
        teller.tell(make_event(100))
        assert teller.flush(5)
        other.database.path.replace(path)
        teller.tell(make_event(101))
        assert teller.flush(5)
        assert [event.id for event in teller.history.page(Query()).events] == [
            name for name, _ in keys(101, 100)
        ]
    assert server.keys == keys(100, 101)
    assert len(list(path.parent.glob("events.db.replaced-*[0-9]"))) == 1


def test_a_database_that_comes_back_with_its_disk_is_gone_on_with(tmp_path, server, monkeypatch):
    """What was open before gives nothing any more; what lies there is the same, on a new device."""

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    config = make_config(tmp_path, webhooks=[webhook(server)])
    path = config.database.path
    with telling(config) as teller:
        teller.tell(make_event(100))
        assert teller.flush(5)
        monkeypatch.setattr(journal, "salvage", fail)
        monkeypatch.setattr(journal, "is_readable", lambda _: False)
        with closing(sqlite3.connect(path)) as old, closing(sqlite3.connect(tmp_path / "b")) as new:
            old.backup(new)
        (tmp_path / "b").replace(path)
        teller.tell(make_event(101))
        assert teller.flush(5)
        assert [event.id for event in teller.history.page(Query()).events] == [
            name for name, _ in keys(101, 100)
        ]
    assert server.keys == keys(100, 101)
    assert not list(path.parent.glob("events.db.replaced-*"))


def test_a_commit_that_only_seemed_to_fail_keeps_nobody_from_the_next(tmp_path, server):
    """Its rows are there, and their numbers must not be given again."""
    config = make_config(tmp_path, webhooks=[webhook(server)])
    server.always = 500
    refused = sqlite3.OperationalError("disk I/O error")
    refused.sqlite_errorcode = sqlite3.SQLITE_IOERR
    with telling(config, close_within_s=0.5) as teller:
        teller.tell(make_event(1))
        assert teller.flush(5)
        with closing(sqlite3.connect(config.database.path)) as other, other:
            other.execute("INSERT INTO outbox SELECT receiver, seq + 1, 'x', 0, put_s, body, 0 "
                          "FROM outbox")  # fmt: skip
        with patch.object(journal.store, "keep", side_effect=[refused, True, True]):
            teller.tell(make_event(2))
            assert teller.flush(5)
        assert teller.statistics().kept == 2


def test_a_receiver_that_fails_as_nobody_thought_of_is_tried_again(tmp_path, server, caplog):
    config = make_config(tmp_path, webhooks=[webhook(server)])
    send = WebhookReceiver.send
    outcomes = iter([RuntimeError("odd"), None])

    def odd(receiver, letters):
        if (fault := next(outcomes, None)) is not None:
            raise fault
        send(receiver, letters)

    with patch.object(WebhookReceiver, "send", odd), telling(config) as teller:
        teller.tell(make_event(1))
        wait_until(lambda: server.keys == keys(1))
    assert "webhook a: failed" in caplog.text


def test_too_many_events_without_a_database_lose_the_oldest_and_are_counted(tmp_path):
    config = make_config(tmp_path, max_waiting=100)
    with telling(config) as teller:
        teller.tell(make_event(0))
        assert teller.flush(5)
        with closing(sqlite3.connect(config.database.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for number in range(1, 1001):
                teller.tell(make_event(number))
            assert teller.statistics().waiting <= 100 + 64
            lost = teller.statistics().lost
            assert lost >= 1000 - 100 - 64
            other.execute("COMMIT")
        assert teller.flush(20)
        assert teller.statistics().kept == 1001 - lost
        assert teller.history.page(Query(limit=1)).events[0].id == keys(1000)[0][0]


def test_a_database_of_a_later_version_is_refused_at_the_start(tmp_path):
    config = make_config(tmp_path)
    with telling(config):
        pass
    with closing(sqlite3.connect(config.database.path)) as later:
        later.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigError, match="version 99"):
        Teller(config)


def test_events_left_open_by_a_crash_are_ended_and_told(tmp_path, server):
    config = make_config(tmp_path, webhooks=[webhook(server)])
    at_s = time.time() - 50.0
    start = make_event(1, phase="start", kind="loiter", at_s=at_s, subject=PERSON)
    with telling(config) as teller:
        teller.tell(start)
    with telling(config) as teller:
        wait_until(lambda: len(server.keys) == 2)
        assert teller.statistics().interrupted == 1
        kept = teller.history.event(start.id)
    assert kept is not None
    assert (kept.phase, kept.interrupted, kept.ended_s, kept.revision) == ("end", True, at_s, 1)
    assert [request.told["retry"] for request in server.requests] == [False, False]
    with telling(config) as teller:
        assert teller.statistics().interrupted == 0


def test_a_message_told_twice_by_its_maker_is_told_once(tmp_path, server):
    start = make_event(1, phase="start")
    with telling(make_config(tmp_path, webhooks=[webhook(server)])) as teller:
        for message in (start, start, then(start, phase="end"), start):
            teller.tell(message)
        assert teller.flush(5)
        assert teller.statistics().known == 2
    assert server.keys == [(start.id, 0), (start.id, 1)]


def test_the_snapshot_of_a_forgotten_event_goes_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.telling.journal.CHECKPOINT_S", 0.05)
    with telling(make_config(tmp_path)) as teller:
        old, new = f"{int(time.time() * 1000):012x}{'0' * 20}", f"{'f' * 12}{'0' * 20}"
        for event_id, age_days in ((old, 31), (new, 0)):
            name = teller.snapshots.save(event_id, b"jpeg")
            teller.tell(make_event(id=event_id, snapshot=name))
            assert teller.flush(5)
            with closing(sqlite3.connect(teller.history._path)) as other, other:
                older = "UPDATE events SET kept_s = kept_s - ? WHERE id = ?"
                other.execute(older, (age_days * 86_400, event_id))
        wait_until(lambda: teller.history.event(old) is None)
        wait_until(lambda: not list((tmp_path / "snapshots").glob(f"*/{old}.jpg")))
        assert list((tmp_path / "snapshots").glob(f"*/{new}.jpg"))


def test_no_secret_is_in_what_is_kept_or_said(tmp_path, server, caplog):
    secrets = ("path-t0ken", "sign-s3cret", "header-t0ken", "broker-p4ss")
    server.answers = [500, 400, "drop", "hang"]
    config = make_config(
        tmp_path,
        webhooks=[
            webhook(server)
            | {
                "url": f"{server.url}/{secrets[0]}",
                "secret": secrets[1],
                "headers": {"Authorization": secrets[2]},
            }
        ],
        mqtt={"host": "127.0.0.1", "port": 1, "username": "u", "password": secrets[3]},
        jsonl={"path": tmp_path / "events.jsonl"},
    )
    with caplog.at_level(logging.DEBUG), telling(config, close_within_s=1.0) as teller:
        for number in range(4):
            teller.tell(make_event(number))
        wait_until(lambda: len(server.keys) >= 6)
        wait_until(lambda: teller.statistics().receivers["mqtt"].last_error)
        said = f"{config!r} {config.model_dump_json()} {teller.statistics()} {caplog.text}"
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for secret in secrets:
        assert secret not in said
        assert secret.encode() not in kept


CHILD = """
import sys
from pathlib import Path
from pipeline.telling.teller import Teller
from pipeline.telling.webhook import WebhookReceiver
from tests.pipeline.telling.builders import make_config, make_event
folder, port, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
hook = {"name": "a", "url": f"http://127.0.0.1:{port}/"}
teller = Teller(make_config(folder, webhooks=[hook], jsonl={"path": folder / "events.jsonl"}))
while True:
    teller.tell(make_event(number))
    assert teller.flush(60)
    print(number, flush=True)
    number += 1
"""


def test_kill_9_loses_nothing_and_doubles_nothing_without_a_mark(tmp_path, server):
    number = 0
    for kill_after in (60, 90):
        command = [sys.executable, "-c", CHILD, tmp_path, str(server.port), str(number)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                number = int(line) + 1
                if number == kill_after:
                    break
            os.kill(child.pid, signal.SIGKILL)
            number = max([number, *(int(line) + 1 for line in child.stdout if line[-1] == "\n")])
    config = make_config(
        tmp_path,
        webhooks=[webhook(server, timeout_s=10.0)],
        jsonl={"path": tmp_path / "events.jsonl"},
    )
    with telling(config) as teller:
        wait_until(lambda: {name for name, _ in keys(*range(number))} <= _ids(server))
    lines = (tmp_path / "events.jsonl").read_bytes().splitlines()
    for told in (
        [request.told for request in server.requests],
        [msgspec.json.decode(line) for line in lines],
    ):
        first_time = [one["event"]["id"] for one in told if not one["retry"]]
        assert len(first_time) == len(set(first_time))
        assert {one["event"]["id"] for one in told} >= {name for name, _ in keys(*range(number))}
    assert teller.history.page(Query(limit=1)).events[0].id >= keys(number - 1)[0][0]


def _ids(server: HttpReceiver) -> set[str]:
    return {name for name, _ in server.keys}
