# SPDX-License-Identifier: Apache-2.0
"""Several processes that train together learn what one with all their images learns."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.trainings import tiny, write_data
from training.ranks import joined

ROOT = Path(__file__).parents[2]
WORKER = ROOT / "tests/training/two_processes.py"


def torchrun(count: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "--nproc-per-node", str(count), *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )


@pytest.fixture(scope="module")
def gradients(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, torch.Tensor]]:
    """Of four images: in one process, and in two with two each."""
    folder = tmp_path_factory.mktemp("ranks")
    data = write_data(folder / "data", count=4, side=64)
    for count in (1, 2):
        done = torchrun(count, str(WORKER), str(data), str(folder), str(4 // count))
        assert done.returncode == 0, done.stderr
    return {path.stem: load_file(path) for path in folder.glob("*.safetensors")}


def difference(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> float:
    """The length of the difference over that of the first, all parameters together."""
    assert one.keys() == two.keys()
    apart = sum(float((one[name] - two[name]).double().square().sum()) for name in one)
    return (apart / sum(float(tensor.double().square().sum()) for tensor in one.values())) ** 0.5


def test_two_processes_have_the_gradients_of_the_doubled_batch(
    gradients: dict[str, dict[str, torch.Tensor]],
) -> None:
    assert difference(gradients["frozen-1"], gradients["frozen-2"]) < 1e-5


def test_live_normalisations_see_half_the_batch_each(
    gradients: dict[str, dict[str, torch.Tensor]],
) -> None:
    """Measured 2026-11-21: 3.2 times the gradient's length, two images a process at 64 px."""
    assert difference(gradients["live-1"], gradients["live-2"]) > 1e-3


def test_only_the_first_of_two_processes_writes_and_both_end(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", count=4, side=64)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(tiny(epochs=1).model_dump_json(exclude_unset=True))
    output = tmp_path / "run"
    arguments = ("train", str(data), "--recipe", str(recipe), "--output", str(output))
    done = torchrun(2, str(ROOT / "sightline.py"), *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run it with") == 1
    assert sorted(path.name for path in output.iterdir()) == [
        "batch.png",
        "best.safetensors",
        "checkpoint.safetensors",
        "history.png",
        "results.csv",
        "weights.safetensors",
    ]


def test_without_torchrun_there_is_one_process() -> None:
    with joined("cpu") as ranks:
        assert (ranks.rank, ranks.world, ranks.first) == (0, 1, True)
        values = torch.ones(3)
        assert torch.equal(ranks.sum(values), values)
