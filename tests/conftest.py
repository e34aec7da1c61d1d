"""What every test may ask for: the shared data folder, when there is one."""

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("SIGHTLINE_DATA", Path(__file__).parents[2] / "shared"))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real clips, images and weights; the test is skipped without it."""
    if not (DATA / "clips").is_dir():
        pytest.skip(f"no clips in {DATA}; set SIGHTLINE_DATA")
    return DATA
