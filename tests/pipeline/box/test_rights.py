# SPDX-License-Identifier: Apache-2.0
"""What touches the service's own files has the service's rights."""

import os
import pwd
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import mkdtemp

import pytest

from pipeline.box import rights
from pipeline.box.backup import keep_database
from pipeline.errors import UpdateFailed

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")


@pytest.fixture
def state() -> Iterator[Path]:
    """A folder of the service's, where its user can come to."""
    folder = Path(mkdtemp())
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def nobody(state: Path, monkeypatch: pytest.MonkeyPatch) -> pwd.struct_passwd:
    """The service's user here, who owns the folder."""
    entry = pwd.getpwnam("nobody")
    os.chown(state, entry.pw_uid, entry.pw_gid)
    monkeypatch.setattr(rights, "service_user", lambda: "nobody")
    return entry


@AS_ROOT
def test_it_is_done_as_the_services_user_and_by_nobody_else(
    state: Path, nobody: pwd.struct_passwd
) -> None:
    rights.as_service((state / "made").touch)
    assert (state / "made").stat().st_uid == nobody.pw_uid
    assert os.geteuid() == 0


@AS_ROOT
@pytest.mark.usefixtures("nobody")
def test_what_goes_wrong_there_is_told_here() -> None:
    def fail() -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with pytest.raises(UpdateFailed, match=r"^disk I/O error$"):
        rights.as_service(fail)


@AS_ROOT
@pytest.mark.usefixtures("nobody")
def test_its_sudden_end_is_told_too() -> None:
    with pytest.raises(UpdateFailed, match="nobody ended with -9"):
        rights.as_service(lambda: os.kill(os.getpid(), 9))


@AS_ROOT
@pytest.mark.usefixtures("nobody")
def test_a_link_that_the_service_has_put_for_its_database_leads_nowhere(state: Path) -> None:
    secret = state / "secret.db"
    with closing(sqlite3.connect(secret)) as connection:
        connection.execute("CREATE TABLE t (x)")
    secret.chmod(0o600)
    (state / "events.db").symlink_to(secret)
    before = secret.read_bytes()
    with pytest.raises(UpdateFailed, match="unable to open"):
        rights.as_service(partial(keep_database, state / "backup/2.0", state / "events.db"))
    assert secret.read_bytes() == before
    assert not (state / "backup/2.0").exists()


def test_without_the_user_it_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rights, "service_user", lambda: None)
    seen: list[int] = []
    rights.as_service(lambda: seen.append(os.getpid()))
    assert seen == [os.getpid()]
