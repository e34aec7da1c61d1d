# SPDX-License-Identifier: Apache-2.0
"""What tests of whole runs share: an engine that finds squares, and a weights file for it."""

from pathlib import Path

import pytest

from tests.pipeline.planned import build_planned
from tests.pipeline.scenes import build_squares, make_card_file


@pytest.fixture
def squares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs find squares instead of building an engine."""
    monkeypatch.setattr("pipeline.job.build_engine", build_squares)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs look with engines for GPUs whose boxes are planned, on two of them."""
    monkeypatch.setattr("pipeline.job.build_engine", build_planned)
    monkeypatch.setattr("pipeline.engines.choose_engine", lambda *_: "cuda")
    monkeypatch.setattr("pipeline.engines.num_devices", lambda: 2)


@pytest.fixture(scope="session")
def card_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file in name only."""
    return make_card_file(tmp_path_factory.mktemp("weights") / "card.safetensors")
