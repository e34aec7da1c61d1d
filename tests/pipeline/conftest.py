# SPDX-License-Identifier: Apache-2.0
"""What tests of whole runs share: an engine that finds squares, and a weights file for it."""

from pathlib import Path

import pytest

from tests.pipeline.scenes import build_squares, make_card_file


@pytest.fixture
def squares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs find squares instead of building an engine."""
    monkeypatch.setattr("pipeline.job.build_engine", build_squares)


@pytest.fixture(scope="session")
def card_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file in name only."""
    return make_card_file(tmp_path_factory.mktemp("weights") / "card.safetensors")
