# SPDX-License-Identifier: Apache-2.0
"""What each of two processes does in `test_ranks.py`; torchrun starts it.

torchrun --nproc-per-node 2 tests/training/two_processes.py DATA_YAML OUTPUT
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.training.trainings import tiny
from training.datasets import read_dataset
from training.job import begin, material
from training.loop import learn
from training.ranks import joined
from training.sampling import Position


def main(data: Path, output: Path, batch_size: int) -> None:
    torch.set_num_threads(1)
    recipe = tiny(sampling={"batch_size": batch_size, "image_size": 64})
    with joined("cpu") as ranks:
        found = material(read_dataset(data), recipe)
        training, state = begin(found, recipe, output, device=torch.device("cpu"), ranks=ranks)
        for norms in ("frozen", "live"):
            state.guided.train(norms == "live")
            state.optimizer.zero_grad()
            batch = next(iter(training.loader.batches(Position(), 1)))
            learn(training, batch, synchronise=True)
            if ranks.first:
                gradients = {
                    name: p.grad.contiguous() for name, p in state.guided.named_parameters()
                }
                save_file(gradients, output / f"{norms}-{ranks.world}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
