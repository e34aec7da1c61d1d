# SPDX-License-Identifier: Apache-2.0
"""Where artefacts are kept, and that a cache never fails."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from model.engines.cache import artefact_path, cache_folder, making, read_artefact, write_artefact


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache_folder() == Path("/a")
    monkeypatch.delenv("SIGHTLINE_CACHE")
    assert cache_folder() == Path("/b/sightline")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "sightline"


def test_a_user_without_a_home_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("SIGHTLINE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    path = artefact_path({"a": 1})
    write_artefact(path, b"compiled")
    assert read_artefact(path) is None


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.artefact"
    write_artefact(path, b"compiled")
    assert read_artefact(path) == b"compiled"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.artefact"]


def test_of_several_who_want_the_same_one_makes_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.artefact"
    made: list[bytes] = []

    def want(_: int) -> bytes | None:
        with making(path):
            if read_artefact(path) is None:
                time.sleep(0.02)
                made.append(b"compiled")
                write_artefact(path, made[-1])
            return read_artefact(path)

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(want, range(4))) == [b"compiled"] * 4
    assert len(made) == 1


def test_where_nothing_can_be_kept_nobody_waits(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    path = tmp_path / "file" / "a.artefact"
    with making(path), making(path):
        write_artefact(path, b"compiled")


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c[:-1],
        lambda c: c + b"x",
        lambda _: b"",
        lambda c: c[1:],
        lambda c: bytes(len(c)),
        lambda c: c[:60] + bytes(len(c) - 60),
    ],
    ids=["cut", "longer", "empty", "begun late", "zeros", "zeros at the end"],
)
def test_what_is_damaged_is_nothing(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "a.artefact"
    write_artefact(path, b"compiled")
    path.write_bytes(damage(path.read_bytes()))
    assert read_artefact(path) is None


def test_what_is_missing_is_nothing(tmp_path: Path) -> None:
    assert read_artefact(tmp_path / "none") is None


def test_everything_in_the_key_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path))
    keys = [{"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 1}]
    assert len({artefact_path(key) for key in keys}) == 3
    assert artefact_path({"b": 2, "a": 1}) == artefact_path({"a": 1, "b": 2})
