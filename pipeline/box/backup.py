# SPDX-License-Identifier: Apache-2.0
"""Settings and database as they were before an update, and how they come back.

Backups are made while no version runs: of the settings by root, of the database with the rights of
the service, to which it belongs. A database whose schema did not change is never put back, so a
rollback costs no event. Where it changed, the backup is put in its place and what was recorded
meanwhile is carried over as far as the older schema has room for it: events that are new or have a
later revision, and letters that still wait for a receiver. The changed database is kept beside it,
as `events.db.from-VERSION`, whatever comes of that.
"""

import logging
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from model.files import sync
from pipeline.box.files import replace_file

logger = logging.getLogger(__name__)

_DATABASE: Final = "events.db"
_SETTINGS: Final = "serve.yaml"
_NO_DATABASE: Final = "no-database"
"""Says that there was none; a backup that is being deleted must not be taken to say so."""
_NEWER: Final = "id NOT IN (SELECT id FROM main.events AS o WHERE o.revision >= n.revision)"


def keep_settings(folder: Path, settings: Path) -> None:
    """Copy the settings into a folder that nobody else may read: they may hold secrets."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    if settings.exists():
        replace_file(folder / _SETTINGS, settings.read_bytes(), 0o600)
    sync(folder.parent)


def keep_database(folder: Path, database: Path) -> None:
    """Copy the database; the folder is there once the copy is whole."""
    beside = folder.with_name(f".{folder.name}.new")
    remove_backup(beside)
    remove_backup(folder)
    beside.mkdir(parents=True, mode=0o700)
    if database.exists():
        with closing(sqlite3.connect(database)) as source:
            _copy(source, beside / _DATABASE)
    else:
        (beside / _NO_DATABASE).touch()
    sync(beside)
    beside.rename(folder)
    sync(folder.parent)


def remove_backup(folder: Path) -> None:
    """Remove a backup, if it is there."""
    shutil.rmtree(folder, ignore_errors=True)


def remove_other_backups(folder: Path) -> None:
    """Remove the backups beside one."""
    for other in folder.parent.glob("*"):
        if other != folder:
            remove_backup(other)


def restore_settings(folder: Path, settings: Path) -> None:
    """Put the settings back if they were changed."""
    kept = folder / _SETTINGS
    if kept.exists() and kept.read_bytes() != settings.read_bytes():
        replace_file(settings, kept.read_bytes())


def restore_database(folder: Path, database: Path, version: str) -> None:
    """Put the database back if a version changed its schema; may be cut off and called again."""
    if not any((folder / name).exists() for name in (_DATABASE, _NO_DATABASE)):
        return  # cut off before it was whole, so before anything was changed, or when all was done
    if _schema(folder / _DATABASE) != _schema(database):
        _put_back(folder / _DATABASE, database, version)


def _schema(database: Path) -> int | None:
    """Version of a database's schema; None if there is none, -1 if it cannot be read."""
    if not database.exists():
        return None
    try:
        with closing(sqlite3.connect(database)) as connection:
            ((version,),) = connection.execute("PRAGMA user_version").fetchall()
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    except sqlite3.Error:
        return -1
    return int(version)


def _put_back(backup: Path, database: Path, version: str) -> None:
    if database.exists():
        is_settled = _settle(database)
        aside = database.with_name(f"{database.name}.from-{version}")
        aside.unlink(missing_ok=True)
        aside.hardlink_to(database)
        if not is_settled:
            _keep_log(database, aside)
        logger.warning("%s: changed by %s; it is kept as %s", database, version, aside.name)
    if not backup.exists():
        _remove(database)
        return
    beside = database.with_name(f".{database.name}.restored")
    beside.unlink(missing_ok=True)
    with closing(sqlite3.connect(backup)) as source:
        _copy(source, beside)
    if database.exists():
        _carry_over(database, beside)
        beside.chmod(database.stat().st_mode & 0o7777)
    sync(beside)
    for ending in ("-wal", "-shm"):
        database.with_name(database.name + ending).unlink(missing_ok=True)
    beside.replace(database)
    sync(database.parent)


def _settle(database: Path) -> bool:
    """Have everything committed lie in the file itself, so that it can be renamed."""
    try:
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE").fetchall()
    except sqlite3.Error as fault:
        logger.warning("%s: cannot be settled: %s", database, fault)
        return False
    return True


def _keep_log(database: Path, aside: Path) -> None:
    """Have the log of what was committed lie beside the file that it belongs to."""
    log = database.with_name(f"{database.name}-wal")
    if log.exists():
        log.rename(aside.with_name(f"{aside.name}-wal"))


def _carry_over(changed: Path, restored: Path) -> None:
    """Take over what was recorded since the backup; all of it or nothing."""
    with closing(sqlite3.connect(restored, isolation_level=None)) as connection:
        try:
            connection.execute("ATTACH ? AS changed", (str(changed),))
            connection.execute("BEGIN IMMEDIATE")
            events, outbox = (_columns(connection, table) for table in ("events", "outbox"))
            cursor = connection.execute(
                f"INSERT OR REPLACE INTO main.events ({events}) "
                f"SELECT {events} FROM changed.events AS n WHERE {_NEWER}"
            )
            connection.execute("DELETE FROM main.outbox")  # what was told is not told again
            connection.execute(
                f"INSERT INTO main.outbox ({outbox}) SELECT {outbox} FROM changed.outbox"
            )
            connection.execute("COMMIT")
        except sqlite3.Error as fault:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            logger.warning("%s: nothing carried back from it: %s", changed, fault)
        else:
            logger.warning("%s: %d events carried back from it", changed, cursor.rowcount)


def _columns(connection: sqlite3.Connection, table: str) -> str:
    """Columns that a table has in both databases."""
    found = [
        [row[1] for row in connection.execute(f"PRAGMA {schema}.table_info({table})")]
        for schema in ("main", "changed")
    ]
    return ", ".join(f'"{name}"' for name in found[0] if name in found[1])


def _copy(source: sqlite3.Connection, path: Path) -> None:
    with closing(sqlite3.connect(path)) as target:
        source.backup(target)
        target.execute("PRAGMA journal_mode = DELETE").fetchall()
    sync(path)


def _remove(database: Path) -> None:
    for ending in ("-wal", "-shm", ""):
        database.with_name(database.name + ending).unlink(missing_ok=True)
    sync(database.parent)
