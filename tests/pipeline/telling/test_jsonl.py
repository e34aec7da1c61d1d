# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from pipeline.telling.config import JsonlConfig
from pipeline.telling.jsonl import JsonlReceiver
from pipeline.telling.letters import Letter, Unreachable, encode_event
from tests.pipeline.telling.builders import make_event


def letter(number: int, **fields: object) -> Letter:
    event = make_event(number, **fields)
    return Letter(key=(event.id, 0), body=encode_event(event))


def numbers(path: Path) -> list[int]:
    lines = path.read_bytes().splitlines()
    return [int(msgspec.json.decode(line)["event"]["id"], 16) for line in lines]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new/events.jsonl"


def make_receiver(path: Path, **fields: object) -> JsonlReceiver:
    return JsonlReceiver(JsonlConfig.model_validate({"path": path, **fields}))


@pytest.mark.parametrize(
    "torn",
    [b'{"version":1,"ret', b"x" * 200_000, bytes(4096), b'{"ver' + bytes(500) + b'5}}\n{"a":1}\n'],
    ids=["short", "long", "zeros", "a hole and what came after it"],
)
def test_a_torn_last_line_is_removed_at_the_start(path, torn):
    receiver = make_receiver(path)
    receiver.send([letter(1), letter(2)])
    receiver.close()
    with path.open("ab") as file:
        file.write(torn)
    receiver = make_receiver(path)
    receiver.send([letter(3)])
    receiver.close()
    assert numbers(path) == [1, 2, 3]


def test_a_line_is_on_the_disk_before_it_counts_as_told(path, monkeypatch):
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: synced.append(os.fstat(descriptor)[6]))
    receiver = make_receiver(path)
    for number in (1, 2):
        receiver.send([letter(number)])
        assert synced[-1] == path.stat().st_size
    assert len(synced) == 2
    receiver.close()


def test_a_file_that_is_large_is_put_aside_and_the_oldest_are_removed(path):
    receiver = make_receiver(path, rotate_mib=1, keep_files=2)
    for number in range(18):
        receiver.send([letter(number, reason="x" * 300_000)])
    receiver.close()
    files = sorted(found.name for found in path.parent.iterdir())
    assert files == ["events.jsonl", "events.jsonl.1", "events.jsonl.2"]
    named = [path, path.with_name("events.jsonl.1"), path.with_name("events.jsonl.2")]
    assert [numbers(one) for one in named] == [[15, 16, 17], [12, 13, 14], [9, 10, 11]]


def test_a_file_that_was_removed_is_begun_anew(path):
    receiver = make_receiver(path)
    receiver.send([letter(1)])
    path.unlink()
    receiver.send([letter(2)])
    receiver.close()
    assert numbers(path) == [2]


def test_a_folder_that_is_none_is_said_and_tried_again(path):
    path.parent.touch()
    receiver = make_receiver(path)
    with pytest.raises(Unreachable, match=r"events.jsonl: cannot be written: file exists"):
        receiver.send([letter(1)])
    path.parent.unlink()
    receiver.send([letter(1)])
    assert numbers(path) == [1]


FULL = """
import resource, sys
from pathlib import Path
from tests.pipeline.telling.test_jsonl import Unreachable, letter, make_receiver
receiver = make_receiver(Path(sys.argv[1]))
receiver.send([letter(1)])
resource.setrlimit(resource.RLIMIT_FSIZE, (800, resource.RLIM_INFINITY))
try:
    receiver.send([letter(2), letter(3)])
except Unreachable as failure:
    assert "file too large" in str(failure), failure
else:
    raise AssertionError("it was written")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
receiver.send([letter(2), letter(3)])
"""


def test_lines_that_did_not_all_fit_leave_no_trace(path):
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", FULL, path], check=True, cwd=root)
    assert numbers(path) == [1, 2, 3]
