# SPDX-License-Identifier: Apache-2.0
import pytest

from pipeline.telling.config import SnapshotsConfig
from pipeline.telling.snapshots import Snapshots

DAY_S = 86_400


def make_snapshots(folder, **fields) -> Snapshots:
    return Snapshots(SnapshotsConfig.model_validate({"directory": folder, **fields}))


def make_id(at_s: float, number: int = 0) -> str:
    return f"{int(at_s * 1000):012x}{number:020x}"


def test_a_picture_lies_under_the_name_of_its_event_and_a_better_one_takes_its_place(tmp_path):
    snapshots = make_snapshots(tmp_path)
    event_id = make_id(1.7e9)
    assert snapshots.save(event_id, b"first") == snapshots.save(event_id, b"better")
    name = f"{event_id[:6]}/{event_id}.jpg"
    assert (tmp_path / name).read_bytes() == b"better"
    assert [path.name for path in tmp_path.rglob("*.*")] == [f"{event_id}.jpg"]
    assert snapshots.num_bytes == 6


@pytest.mark.parametrize("event_id", ["../../etc/passwd", "", "A" * 32, "0" * 31])
def test_a_name_that_is_no_id_is_refused(tmp_path, event_id):
    with pytest.raises(ValueError, match="32 hexadecimal digits"):
        make_snapshots(tmp_path).save(event_id, b"x")


def test_old_pictures_are_removed_with_their_folders(tmp_path):
    snapshots = make_snapshots(tmp_path, keep_days=2)
    names = [snapshots.save(make_id(1.7e9 + day * DAY_S), b"x") for day in range(4)]
    snapshots.tidy(now_s=1.7e9 + 4 * DAY_S)
    assert [(tmp_path / name).exists() for name in names] == [False, False, True, True]
    assert len(list(tmp_path.iterdir())) == 2


def test_too_many_bytes_take_the_oldest_pictures_those_of_earlier_runs_too(tmp_path):
    for number in range(3):
        make_snapshots(tmp_path).save(make_id(1.7e9, number), b"x" * 400_000)
    again = make_snapshots(tmp_path, keep_mib=1)
    assert again.num_bytes == 1_200_000
    again.tidy(now_s=1.7e9)
    assert again.num_bytes == 800_000
    assert [path.stem for path in sorted(tmp_path.rglob("*.jpg"))] == [
        make_id(1.7e9, 1),
        make_id(1.7e9, 2),
    ]


def test_what_was_half_written_is_removed_at_the_start(tmp_path):
    (tmp_path / "018bcf").mkdir()
    torn = tmp_path / f"018bcf/{'0' * 32}.jpg.77.partial"
    torn.touch()
    (tmp_path / "018bcf/holiday.jpg").touch()
    assert make_snapshots(tmp_path).num_bytes == 0
    assert [path.name for path in tmp_path.rglob("*.*")] == ["holiday.jpg"]


def test_a_disk_that_takes_no_picture_is_said_once_and_counted(tmp_path, caplog):
    (tmp_path / "file").touch()
    snapshots = make_snapshots(tmp_path / "file")
    assert snapshots.save(make_id(1.7e9), b"x") is None
    assert snapshots.save(make_id(1.7e9), b"x") is None
    assert snapshots.num_failed == 2
    assert len(caplog.messages) == 1
    (tmp_path / "file").unlink()
    assert snapshots.save(make_id(1.7e9), b"x") is not None
