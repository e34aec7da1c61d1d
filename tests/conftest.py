# SPDX-License-Identifier: Apache-2.0
"""What every test may ask for: the shared data folder, when there is one, and a GPU."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

DATA = Path(os.environ.get("SIGHTLINE_DATA", Path(__file__).parents[2] / "shared"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none, or fail it where one is required."""
    if item.get_closest_marker("needs_cuda") is None:
        return
    from model.cuda.presence import what_lacks

    lacking = what_lacks()
    if lacking is None:
        return
    if os.environ.get("REQUIRE_CUDA") == "1":
        pytest.fail(f"REQUIRE_CUDA=1, and this test needs {lacking}", pytrace=False)
    pytest.skip(f"needs {lacking}")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiled models of tests lie with the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGHTLINE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_default_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Only models that a test puts there have names; what the package ships is not among them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIGHTLINE_MODELS", str(tmp_path_factory.mktemp("models")))
        yield


@pytest.fixture(autouse=True)
def _own_logs() -> Iterator[None]:
    """A command that a test runs in this process sets up the logs; that ends with the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real clips, images and weights; the test is skipped without it."""
    if not (DATA / "clips").is_dir():
        pytest.skip(f"no clips in {DATA}; set SIGHTLINE_DATA")
    return DATA


@pytest.fixture(scope="session")
def coco_weights(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real YOLOv9-T, imported; never leaves the tests' own folder."""
    from model.importing import import_weights

    output = tmp_path_factory.mktemp("weights") / "t.safetensors"
    import_weights(data / "weights/yolov9t-coco-fused.safetensors", output)
    return output
