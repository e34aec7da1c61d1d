# SPDX-License-Identifier: Apache-2.0
"""What the tests of the model may ask for."""

from pathlib import Path

import pytest
import torch

from tests.model.builders import make_image, make_quantised_card, make_weights


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of random values, size T, three classes."""
    return make_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def quantised(weights: Path) -> tuple[bytes, bytes]:
    """The graph of `weights` in int8, text and numbers: made once, because it takes long."""
    from model.quantising import quantise, serialise

    canvases = [make_image(64, 96, seed=seed) for seed in range(4)]
    return serialise(quantise(weights, canvases, correct_bias=False))


@pytest.fixture(scope="session")
def artefact(quantised: tuple[bytes, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`weights` as an int8 artefact."""
    from model.artefact import save_artefact

    path = tmp_path_factory.mktemp("artefact") / "int8.safetensors"
    save_artefact(path, *quantised, make_quantised_card(*quantised))
    return path


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small pictures run faster on one core than on several that wait for each other."""
    torch.set_num_threads(1)
