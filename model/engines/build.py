# SPDX-License-Identifier: Apache-2.0
"""Choose an engine and build it; only the one chosen is imported."""

import importlib.util
from typing import Final

from model.card import Card, read_card
from model.config import EngineName, ModelConfig
from model.engines.contract import Engine
from model.errors import ConfigError, EngineError

STRIDE: Final = 32
"""Sides of the canvas are whole multiples of the coarsest level's stride."""


def build_engine(
    config: ModelConfig,
    *,
    image_hw: tuple[int, int],
    batch: int = 1,
    num_requests: int | None = None,
    num_threads: int | None = None,
) -> Engine:
    """Build the engine that the settings ask for, for one shape of images.

    Args:
        config: Weights, engine and precision.
        image_hw: Height and width of the canvas, whole multiples of 32.
        batch: Images per request.
        num_requests: Requests in flight; one per usable core if not given. One request alone
            uses every core.
        num_threads: Cores used in all; every usable one if not given.
    """
    if config.weights is None:
        raise ConfigError("model.weights: no weights given; name a file made by: sightline import")
    if any(side < STRIDE or side % STRIDE for side in image_hw):
        raise ValueError(f"image_hw must be multiples of {STRIDE}, got {image_hw}")
    if any(count is not None and count < 1 for count in (batch, num_requests, num_threads)):
        raise ValueError(
            f"counts must be at least 1, got {batch=}, {num_requests=}, {num_threads=}"
        )
    input_shape = (batch, *image_hw, 3)
    check_runs(config, read_card(config.weights))
    if choose_engine(config.engine) == "openvino":
        try:
            from model.engines.openvino import OpenVinoEngine, Plan
        except ImportError as failure:
            raise EngineError(
                f"model.engine: openvino does not start here ({failure}); choose torch"
            ) from failure
        plan = Plan.make(config.precision, input_shape, num_requests, num_threads)
        return OpenVinoEngine(config.weights, plan)
    if config.precision == "bf16":
        raise EngineError(
            "model.precision: engine torch computes in f32 only, got bf16; choose auto, f32 or "
            "accuracy, or engine openvino"
        )
    from model.engines.torch import TorchEngine

    return TorchEngine(config.weights, input_shape, num_threads)


def check_runs(config: ModelConfig, card: Card) -> None:
    """Refuse settings that a quantised artefact cannot be run with."""
    if card.quantisation is None:
        return
    precision = card.quantisation.precision
    if config.precision != "auto":
        raise EngineError(
            f"model.precision: {config.weights} is an {precision} artefact, got "
            f"{config.precision}; choose auto, or give the weights it was exported from"
        )
    if choose_engine(config.engine) != "openvino":
        raise EngineError(
            f"model.engine: {config.weights} is an {precision} artefact, which only openvino runs, "
            f"got {config.engine}; choose openvino, or give the weights it was exported from"
        )


def choose_engine(name: EngineName) -> EngineName:
    """Return the engine that `auto` stands for on this machine."""
    installed = importlib.util.find_spec("openvino") is not None
    if name == "openvino" and not installed:
        raise EngineError("model.engine: openvino is not installed; install it or choose torch")
    if name == "auto":
        return "openvino" if installed else "torch"
    return name
