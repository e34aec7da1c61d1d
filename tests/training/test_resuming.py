# SPDX-License-Identifier: Apache-2.0
"""A training that was killed goes on where it was, and ends with the same weights to the bit."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.errors import ConfigError, WeightsError
from tests.training.trainings import tiny, write_data
from training.checkpoints import NAME, read_checkpoint
from training.job import train
from training.loop import WEIGHTS
from training.recipe import Recipe

ROOT = Path(__file__).parents[2]


def start_training(data: Path, recipe: Path, output: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "sightline.py"), "train", str(data), "--recipe"]
    return subprocess.Popen(
        [*command, str(recipe), "--output", str(output), "--resume"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def written(tmp_path: Path, recipe: Recipe) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.model_dump_json(exclude_unset=True))
    return path


def values(output: Path) -> dict[str, torch.Tensor]:
    """All that a training has come to: weights, their average, and what the optimizer keeps."""
    return load_file(output / NAME) | {
        f"deployed.{name}": tensor for name, tensor in load_file(output / WEIGHTS).items()
    }


def assert_equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_five_random_moments_it_ends_with_the_same_weights(tmp_path: Path) -> None:
    """A checkpoint after each of 40 updates, and death at any moment from the first one on.

    Last run 2026-11-21: equal, in 186 s on two busy cores.
    """
    data = write_data(tmp_path / "data", count=5, side=64)
    recipe = tiny(epochs=20, evaluate_every=7)
    whole = start_training(data, written(tmp_path, recipe), tmp_path / "whole")
    assert whole.wait() == 0, whole.communicate()[0]
    moments = random.Random(7)
    for _ in range(5):
        process = start_training(data, tmp_path / "recipe.yaml", tmp_path / "killed")
        await_checkpoints(tmp_path / "killed" / NAME, moments.randint(1, 6))
        time.sleep(moments.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    last = start_training(data, tmp_path / "recipe.yaml", tmp_path / "killed")
    assert last.wait() == 0, last.communicate()[0]
    assert_equal(values(tmp_path / "whole"), values(tmp_path / "killed"))
    assert not list((tmp_path / "killed").glob(".*.partial"))


def await_checkpoints(path: Path, count: int) -> None:
    """Wait until so many checkpoints more have taken the place of the one that is there."""

    def written_at() -> int:
        return path.stat().st_mtime_ns if path.exists() else 0

    for _ in range(count):
        before = written_at()
        while written_at() == before:
            time.sleep(0.005)


class Killed(BaseException):
    """Stands for a death that no handler sees."""


@pytest.mark.parametrize(("update", "kind"), [(1, "adamw"), (4, "sgd")])
def test_taken_up_after_any_update_it_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, update: int
) -> None:
    data = write_data(tmp_path / "data", count=5, side=64)
    recipe = tiny(optimiser={"kind": kind})
    train(data, recipe, tmp_path / "whole", resume=False, shown=False)
    die_after(monkeypatch, update)
    with pytest.raises(Killed):
        train(data, recipe, tmp_path / "killed", resume=False, shown=False)
    monkeypatch.undo()
    assert read_checkpoint(tmp_path / "killed" / NAME).updates == update
    train(data, recipe, tmp_path / "killed", resume=True, shown=False)
    assert_equal(values(tmp_path / "whole"), values(tmp_path / "killed"))
    rows = [read_checkpoint(tmp_path / name / NAME).rows for name in ("whole", "killed")]
    assert [row.box for row in rows[0]] == [row.box for row in rows[1]]
    assert (tmp_path / "killed/results.csv").read_text().count("\n") == 3


def die_after(monkeypatch: pytest.MonkeyPatch, update: int) -> None:
    """Die in the update after so many."""
    from training.ema import Average

    right = Average.update

    def dying(self: Average, guided: torch.nn.Module) -> None:
        if self.updates == update:
            raise Killed
        right(self, guided)

    monkeypatch.setattr(Average, "update", dying)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data set and a training on it that is over."""
    folder = tmp_path_factory.mktemp("finished")
    data = write_data(folder / "data", count=2, side=64)
    train(data, tiny(epochs=1), folder / "run", resume=False, shown=False)
    return data, folder / "run"


def test_a_training_that_is_over_is_over_again(finished: tuple[Path, Path]) -> None:
    data, output = finished
    before = values(output)
    train(data, tiny(epochs=1), output, resume=True, shown=False)
    assert_equal(before, values(output))


def test_a_training_is_not_written_over(finished: tuple[Path, Path]) -> None:
    data, output = finished
    with pytest.raises(ConfigError, match="go on with --resume, or give another --output"):
        train(data, tiny(epochs=1), output, resume=False, shown=False)


def test_another_recipe_is_refused_and_named(finished: tuple[Path, Path]) -> None:
    data, output = finished
    with pytest.raises(ConfigError, match="begun with another epochs, patience; "):
        train(data, tiny(epochs=2, patience=3), output, resume=True, shown=False)


def test_other_data_is_refused(finished: tuple[Path, Path], tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", count=3, side=64)
    with pytest.raises(ConfigError, match="the data set has changed since"):
        train(data, tiny(epochs=1), finished[1], resume=True, shown=False)


@pytest.mark.parametrize("content", [b"", b"\x80\x04.", b"\x08" + bytes(7) + b"{}      "])
def test_a_damaged_checkpoint_is_one_line(
    finished: tuple[Path, Path], tmp_path: Path, content: bytes
) -> None:
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        train(finished[0], tiny(epochs=1), tmp_path, resume=True, shown=False)
    assert str(caught.value).startswith(f"{tmp_path / NAME}: ")
    assert "\n" not in str(caught.value)


def test_a_full_disk_keeps_the_former_checkpoint_and_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_data(tmp_path / "data", count=5, side=64)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    output = tmp_path / "run"
    die_after(monkeypatch, 2)
    with pytest.raises(Killed):
        train(data, tiny(), output, resume=False, shown=False)
    former = (output / NAME).read_bytes()
    monkeypatch.undo()
    die_after(monkeypatch, 3)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(former) // 2, before[1]))
    try:
        with pytest.raises(Killed):
            train(data, tiny(), output, resume=True, shown=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (output / NAME).read_bytes() == former
    assert (
        "checkpoint not written: File too large; the former one is kept" in capfd.readouterr().err
    )
    assert not list(output.glob(".*.partial"))
