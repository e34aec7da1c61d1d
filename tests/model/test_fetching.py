# SPDX-License-Identifier: Apache-2.0
"""`sightline fetch`: licence, verification, conversion, and what is said without a network."""

import hashlib
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from model.card import read_card
from model.catalogue import CATALOGUE
from model.downloading import Limits
from model.errors import ConfigError, FetchError, WeightsError
from model.fetching import accept, fetch, fetched_path, find_published, is_accepted
from model.shipped import find_weights
from sightline import main
from tests.model.builders import make_detector, published_tensors, save_published
from tests.model.file_server import FileServer, serving

T = CATALOGUE["yolov9-t"]
QUICK = Limits(silence_s=5, pause_s=0.01, attempts=1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("published") / "t"
    return save_published(path, published_tensors(make_detector())).read_bytes()


@pytest.fixture
def server(
    checkpoint: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FileServer]:
    """A mirror that has the checkpoint; what is fetched lies with the test."""
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))
    with serving(checkpoint) as server:
        monkeypatch.setenv("SIGHTLINE_MIRROR", server.url)
        yield server


def test_fetched_weights_have_a_name_a_digest_and_a_licence(
    server: FileServer, checkpoint: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", "yolov9-t", "--accept-licence"]) == 0
    digest = hashlib.sha256(checkpoint).hexdigest()
    assert f"yolov9-t-converted.pt: SHA-256 {digest} (recorded; none is" in capsys.readouterr().out
    card = read_card(find_weights(Path("yolov9-t")))
    assert (card.source, card.source_sha256) == ("yolov9-t-converted.pt", digest)
    assert card.licence.startswith("GPL-3.0")
    cache = fetched_path(T).parents[1]
    assert not any((cache / "downloads").iterdir())  # the checkpoint is not kept twice
    assert main(["fetch", "yolov9-t"]) == 0
    assert len(server.asked) == 1


def test_a_licence_is_accepted_once_for_all_of_its_publisher(
    server: FileServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", "yolov9-t"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "its licence is GPL-3.0" in line
    assert "--accept-licence" in line
    assert server.asked == []
    accept(T)
    assert is_accepted(CATALOGUE["gelan-c"])
    assert not is_accepted(replace(T, licence="another"))
    assert not is_accepted(replace(T, publisher="somebody else"))
    assert main(["fetch", "yolov9-t"]) == 0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("\n", 2), ("no\n", 2)])
def test_at_a_terminal_the_licence_is_shown_and_asked_for(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    shown = Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    monkeypatch.setattr(sys, "stdout", shown)
    assert main(["fetch", "yolov9-t"]) == code
    assert "published by WongKinYiu/yolov9 under GPL-3.0" in shown.getvalue()
    assert len(server.asked) == (code == 0)


@pytest.mark.usefixtures("server")
def test_a_digest_that_is_known_must_hold(checkpoint: bytes) -> None:
    accept(T)
    right = replace(T, sha256=hashlib.sha256(checkpoint).hexdigest(), size_bytes=len(checkpoint))
    with pytest.raises(FetchError, match="expected 0000"):
        fetch(replace(T, sha256="0" * 64), limits=QUICK)
    assert not fetched_path(T).exists()
    assert fetch(right, limits=QUICK) == fetched_path(T)


def test_a_cut_download_is_gone_on_with_by_the_next_call(server: FileServer) -> None:
    accept(T)
    server.cuts = [1_000_000, 0]
    with pytest.raises(FetchError, match="1,000,000 bytes are kept"):
        fetch(T, limits=QUICK)
    assert read_card(fetch(T, limits=QUICK)).scale == "T"
    assert server.asked[-1] == "bytes=1000000-"


def test_what_is_no_checkpoint_is_not_kept(server: FileServer) -> None:
    accept(T)
    server.content = b"<html>sign in first</html>" * 99
    with pytest.raises(WeightsError, match="a web page, so the download went wrong"):
        fetch(T, limits=QUICK)
    assert not fetched_path(T).exists()
    assert not any((fetched_path(T).parents[1] / "downloads").iterdir())


def test_a_failed_fetch_leaves_the_weights_that_were_there(server: FileServer) -> None:
    accept(T)
    before = fetch(T, limits=QUICK).read_bytes()
    server.statuses = [404]
    with pytest.raises(FetchError, match="404"):
        fetch(T, overwrite=True, limits=QUICK)
    assert fetched_path(T).read_bytes() == before


def test_without_a_network_one_line_says_what_to_do(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("model.downloading.time.sleep", lambda _: None)
    server.shutdown()
    server.server_close()
    assert main(["fetch", "yolov9-t", "--accept-licence"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "Connection refused" in line
    assert f"or fetch {T.url} elsewhere, copy it here, and: sightline import" in line
    assert f"yolov9-t-converted.pt --output {fetched_path(T)}" in line


def test_an_unknown_name_is_told_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'yolov8-n'; yolov9-t, yolov9-s,"):
        find_published("yolov8-n")


def test_without_a_name_the_table_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in CATALOGUE)


def test_every_entry_is_of_a_publisher_s_own_release_page() -> None:
    for name, file in CATALOGUE.items():
        assert file.name == name
        assert file.url.startswith(f"https://github.com/{file.publisher}/releases/download/")
        assert file.file_name.endswith(".pt")
        assert file.licence


def test_records_that_are_damaged_count_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path))
    (tmp_path / "licences.json").write_text("{")
    assert not is_accepted(T)
    accept(T)
    assert json.loads((tmp_path / "licences.json").read_text()) == {T.publisher: T.licence}
