# SPDX-License-Identifier: Apache-2.0
"""What the tests of the model may ask for."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.model.builders import make_weights


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of random values, size T, three classes."""
    return make_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Built engines are kept for this run only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGHTLINE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
