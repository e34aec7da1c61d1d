# SPDX-License-Identifier: Apache-2.0
"""Files that appear whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from model import files
from model.files import make_folder, replacing, write_new


@pytest.fixture
def steps(monkeypatch):
    """What is synced and what gets its name, in order."""
    done: list[str] = []
    sync, replace, link = files.sync, Path.replace, Path.hardlink_to

    def kind(path):
        return "folder" if path.is_dir() else path.read_text()

    monkeypatch.setattr(files, "sync", lambda path: (done.append(kind(path)), sync(path)))
    monkeypatch.setattr(
        Path, "replace", lambda path, target: (done.append("name"), replace(path, target))
    )
    monkeypatch.setattr(
        Path, "hardlink_to", lambda path, target: (done.append("name"), link(path, target))
    )
    return done


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")
    with replacing(path) as temporary:
        temporary.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(UnicodeEncodeError), replacing(path) as temporary:
        temporary.write_text("half \ud800", encoding="utf-8")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_content_reaches_the_disk_before_its_name_and_then_the_folder(tmp_path, steps):
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("content")
    assert steps == ["content", "name", "folder"]


def test_a_new_file_reaches_the_disk_before_its_name_too(tmp_path, steps):
    write_new(tmp_path / "a.txt", b"content", 0o600)
    assert steps == ["content", "name", "folder"]
    assert list(tmp_path.iterdir()) == [tmp_path / "a.txt"]
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links, as on FAT"])
def test_a_new_file_replaces_none(tmp_path, monkeypatch, links):
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if not links:
        monkeypatch.setattr(Path, "hardlink_to", refuse)
    path = tmp_path / "a.txt"
    write_new(path, b"first")
    with pytest.raises(FileExistsError):
        write_new(path, b"second")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_each_folder_that_was_made_is_named_on_the_disk(tmp_path, monkeypatch):
    synced: list[Path] = []
    monkeypatch.setattr(files, "sync", synced.append)
    make_folder(tmp_path / "a/b/c")
    assert (tmp_path / "a/b/c").is_dir()
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a/b"]
    make_folder(tmp_path / "a/b/c")
    assert len(synced) == 3
