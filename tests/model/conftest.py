# SPDX-License-Identifier: Apache-2.0
"""What the tests of the model may ask for."""

from pathlib import Path

import pytest
import torch

from tests.model.builders import make_weights


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of random values, size T, three classes."""
    return make_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small pictures run faster on one core than on several that wait for each other."""
    torch.set_num_threads(1)
