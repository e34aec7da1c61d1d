# SPDX-License-Identifier: Apache-2.0
"""Which engine is chosen, and what is refused before any is imported."""

import sys
from pathlib import Path

import pytest

from model.config import ModelConfig
from model.engines import build, build_engine
from model.errors import ConfigError, EngineError


def test_auto_is_openvino_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert build.choose_engine("auto") == "openvino"
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert build.choose_engine("auto") == "torch"
    with pytest.raises(EngineError, match="not installed"):
        build.choose_engine("openvino")


def test_an_openvino_that_does_not_start_is_named(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "model.engines.openvino", None)
    with pytest.raises(EngineError, match="does not start here"):
        build_engine(ModelConfig(weights=weights, engine="openvino"), image_hw=(64, 64))


def test_no_weights_is_a_fault_of_the_settings() -> None:
    with pytest.raises(ConfigError, match=r"model\.weights"):
        build_engine(ModelConfig(), image_hw=(64, 64))


@pytest.mark.parametrize("image_hw", [(64, 100), (0, 64), (-32, 64)])
def test_a_canvas_of_part_strides_is_refused(weights: Path, image_hw: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        build_engine(ModelConfig(weights=weights), image_hw=image_hw)


@pytest.mark.parametrize("counts", [{"batch": 0}, {"num_requests": 0}, {"num_threads": -1}])
def test_counts_below_one_are_refused(weights: Path, counts: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        build_engine(ModelConfig(weights=weights), image_hw=(64, 64), **counts)


def test_eager_torch_refuses_bf16(weights: Path) -> None:
    config = ModelConfig(weights=weights, engine="torch", precision="bf16")
    with pytest.raises(EngineError, match="f32 only"):
        build_engine(config, image_hw=(64, 64))
