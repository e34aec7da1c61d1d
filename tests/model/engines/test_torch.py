# SPDX-License-Identifier: Apache-2.0
"""The eager engine."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from model.config import ModelConfig
from model.engines import build_engine
from model.engines.torch import TorchEngine
from model.weights import load_detector


@pytest.fixture(scope="module")
def engine(weights: Path) -> TorchEngine:
    built = build_engine(ModelConfig(weights=weights, engine="torch"), image_hw=(64, 96), batch=2)
    assert isinstance(built, TorchEngine)
    return built


def make_images(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)


def test_it_gives_what_the_detector_gives(engine: TorchEngine, weights: Path) -> None:
    detector, _ = load_detector(weights)
    images = make_images()
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        expected = detector(pixels.contiguous()).numpy()
    np.testing.assert_allclose(engine.infer(images), expected, atol=1e-3)
    assert expected.shape == engine.output_shape


def test_it_says_what_it_is(engine: TorchEngine) -> None:
    assert (engine.name, engine.precision, engine.num_requests) == ("torch", "f32", 1)


def test_a_request_has_ended_when_start_returns(engine: TorchEngine) -> None:
    predictions = np.empty(engine.output_shape, np.float32)
    ended: list[BaseException | None] = []
    engine.start(make_images(), predictions, ended.append)
    assert ended == [None]
    np.testing.assert_array_equal(predictions, engine.infer(make_images()))


def test_a_failure_is_told(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(engine, "_detector", broken)
    ended: list[BaseException | None] = []
    engine.start(make_images(), np.empty(engine.output_shape, np.float32), ended.append)
    assert str(ended[0]) == "torch failed: no memory"


def test_read_only_images_are_read_without_a_warning(engine: TorchEngine) -> None:
    images = make_images()
    images.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine.infer(images)


def test_images_of_another_shape_are_refused(engine: TorchEngine) -> None:
    with pytest.raises(ValueError, match="images must be uint8 of shape"):
        engine.infer(make_images()[:1])
    engine.close()
