# SPDX-License-Identifier: Apache-2.0
"""TensorBoard is shown what results.csv has."""

import csv
import sys
from pathlib import Path

import pytest

from model.errors import MissingExtra
from tests.training.trainings import tiny, write_data
from training.board import Board
from training.job import train
from training.state import Row

pytest.importorskip("tensorboard")


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        name: {event.step: event.value for event in events.Scalars(name)}
        for name in events.Tags()["scalars"]
    }


def row(epoch: int, box: float) -> Row:
    return Row(epoch=epoch, box=box, score=1, distribution=2, lr=0.1, images_per_s=3, seconds=4)


def test_it_has_what_the_results_have(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", count=4, side=64)
    recipe = tiny(epochs=2, tensorboard=True, evaluate_every=1)
    assert train(data, recipe, tmp_path / "run", resume=False, shown=False) is not None
    with (tmp_path / "run/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = scalars(tmp_path / "run/tensorboard")
    assert set(found) == set(rows[0]) - {"epoch", "seconds"}
    for name, steps in found.items():
        wanted = {int(one["epoch"]) + 1: pytest.approx(float(one[name]), rel=1e-4) for one in rows}
        assert steps == wanted, name


def test_what_a_killed_training_does_again_is_shown_once(tmp_path: Path) -> None:
    killed = Board(tmp_path, [])
    for epoch in range(3):
        killed.epoch(row(epoch, box=epoch))
    killed.close()
    again = Board(tmp_path, [row(0, box=0)])
    again.epoch(row(1, box=7))
    again.close()
    assert scalars(tmp_path / "tensorboard")["box"] == {1: 0, 2: 7}


def test_without_tensorboard_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtra, match=r"pip install 'sightline\[tensorboard\]'"):
        Board(tmp_path, [])
