# SPDX-License-Identifier: Apache-2.0
"""Downloads from a server that misbehaves: whole or not at all, and gone on with."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from model import downloading
from model.downloading import Limits, download
from model.errors import FetchError
from tests.model.file_server import FileServer, serving

CONTENT = np.random.default_rng(1).bytes(400_000)
QUICK = Limits(silence_s=5, pause_s=0.01, attempts=2)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving(CONTENT) as server:
        yield server


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "file.pt"


def get(server: FileServer, target: Path, limits: Limits = QUICK, **more: object) -> None:
    download(f"{server.url}/file.pt", target, limits=limits, **more)


def fault(server: FileServer, target: Path, limits: Limits = QUICK, **more: object) -> str:
    with pytest.raises(FetchError) as caught:
        get(server, target, limits, **more)
    assert not target.exists()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def kept(target: Path) -> int:
    return target.with_name("file.pt.partial").stat().st_size


def test_a_file_arrives_whole_and_nothing_lies_beside_it(server: FileServer, target: Path) -> None:
    told: list[tuple[int, int | None]] = []
    get(server, target, on_progress=lambda *now: told.append(now))
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_cut_connection_is_gone_on_with(server: FileServer, target: Path) -> None:
    server.cuts = [100_000, 50_000, 0, 7]
    get(server, target)
    assert target.read_bytes() == CONTENT
    starts = [asked.removeprefix("bytes=").removesuffix("-") for asked in server.asked]
    assert starts == ["", "100000", "150000", "150000", "150007"]


def test_what_a_failed_download_left_is_gone_on_with_by_the_next(
    server: FileServer, target: Path
) -> None:
    server.cuts = [123_456, 0, 0]
    assert "123,456 bytes are kept" in fault(server, target)
    assert kept(target) == 123_456
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=123456-"


def test_a_server_without_ranges_sends_everything_again(server: FileServer, target: Path) -> None:
    server.ranges, server.cuts = False, [100_000]
    get(server, target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("version", ["", '"2"'], ids=["no version", "another version"])
def test_parts_of_two_versions_are_never_joined(
    server: FileServer, target: Path, version: str
) -> None:
    server.cuts = [100_000, 0, 0]
    fault(server, target)
    server.content, server.version = CONTENT[::-1], version
    get(server, target)
    assert target.read_bytes() == CONTENT[::-1]


def test_without_a_version_nothing_is_gone_on_with(server: FileServer, target: Path) -> None:
    server.version, server.cuts = "", [100_000]
    get(server, target)
    assert server.asked == ["", ""]
    assert target.read_bytes() == CONTENT


def test_a_range_that_cannot_be_is_answered_with_a_new_beginning(
    server: FileServer, target: Path
) -> None:
    server.cuts = [100_000, 0, 0]
    fault(server, target)
    server.statuses = [416]
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert server.asked[-1] == ""


def test_another_size_than_the_known_one_is_refused_before_it_is_read(
    server: FileServer, target: Path
) -> None:
    text = fault(server, target, size_bytes=399_999)
    assert "the server has 400,000 bytes, expected 399,999" in text
    assert kept(target) == 0


def test_a_length_that_is_not_declared_is_checked_at_the_end(
    server: FileServer, target: Path
) -> None:
    server.says_length = False
    assert "400,000 bytes came, expected 500,000" in fault(server, target, size_bytes=500_000)
    get(server, target, size_bytes=400_000)
    assert target.read_bytes() == CONTENT


def test_a_file_shorter_than_declared_is_no_whole_file(server: FileServer, target: Path) -> None:
    server.declared, server.ranges = 500_000, False
    assert "cut at 400,000 of 500,000 bytes" in fault(server, target, Limits(attempts=1, pause_s=0))


def test_a_server_that_sends_without_end_is_given_up(server: FileServer, target: Path) -> None:
    server.says_length = False
    limits = Limits(max_bytes=200_000, attempts=1)
    assert "more than 200,000 bytes" in fault(server, target, limits)
    assert kept(target) == 0


@pytest.mark.parametrize("status", [401, 404, 410])
def test_what_is_not_there_is_not_asked_for_again(
    server: FileServer, target: Path, status: int
) -> None:
    server.statuses = [status] * 9
    assert f"the server says {status}" in fault(server, target)
    assert len(server.asked) == 1


def test_a_busy_server_is_asked_again(server: FileServer, target: Path) -> None:
    server.statuses = [503]
    get(server, target)
    assert target.read_bytes() == CONTENT
    server.statuses = [503] * 9
    target.unlink()
    assert "the server says 503" in fault(server, target)


def test_a_silent_server_is_given_up(server: FileServer, target: Path) -> None:
    server.hang.set()
    assert "the server is silent" in fault(
        server, target, Limits(silence_s=0.2, attempts=2, pause_s=0.01)
    )
    assert len(server.asked) == 2


def test_a_download_that_takes_too_long_is_given_up(server: FileServer, target: Path) -> None:
    assert "not whole after 0 s" in fault(server, target, Limits(total_s=0, pause_s=0))


def test_nobody_listening_is_one_line(target: Path) -> None:
    with serving(b"") as server:
        url = server.url
    with pytest.raises(FetchError, match="Connection refused"):
        download(url, target, limits=QUICK)


def test_a_file_that_moved_is_followed(server: FileServer, target: Path) -> None:
    server.moved_to, server.cuts = f"{server.url}/moved", [100_000]
    get(server, target)
    assert target.read_bytes() == CONTENT


def test_https_is_never_left_for_http() -> None:
    request = downloading.urllib.request.Request("https://127.0.0.1/file")
    handler = downloading._SameScheme()
    with pytest.raises(FetchError, match="which is not https"):
        handler.redirect_request(request, None, 302, "", None, "http://127.0.0.1/file")


def test_two_downloads_of_one_file_do_not_mix(server: FileServer, target: Path) -> None:
    server.hang.clear()
    other: list[str] = []

    def meanwhile(*_: object) -> None:
        if not other:
            other.append(fault(server, target))

    get(server, target, on_progress=meanwhile)
    assert "another fetch is writing it" in other[0]
    assert target.read_bytes() == CONTENT


def test_a_folder_that_cannot_be_made_is_one_line(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    text = fault(server, tmp_path / "taken/file.pt")
    assert "taken" in text
    assert "cannot be written" in text
