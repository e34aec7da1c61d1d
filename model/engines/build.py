# SPDX-License-Identifier: Apache-2.0
"""Choose an engine and build it; only the one chosen is imported."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model.built import ArtefactEngine
from model.card import Card, read_card
from model.config import EngineName, ModelConfig, Precision
from model.cuda.plan import EnginePlan, GpuWanted, NumberFormat
from model.cuda.presence import what_lacks
from model.engines.contract import Engine
from model.engines.machine import check_machine, check_openvino
from model.errors import ConfigError, EngineError

STRIDE: Final = 32
"""Sides of the canvas are whole multiples of the coarsest level's stride."""
PRECISIONS: Final[dict[EngineName, tuple[Precision, ...]]] = {
    "openvino": ("auto", "f32", "bf16", "accuracy"),
    "torch": ("auto", "f32", "accuracy"),
    "cuda": ("auto", "f16", "bf16", "f32", "accuracy"),
}
"""What an engine takes; those that are not named here take what torch takes."""
_NUMBERS: Final[dict[EngineName, str]] = {
    "openvino": "f32 or bf16",
    "cuda": "f16, bf16 or f32",
}
_NUMBER_FORMATS: Final[dict[Precision, NumberFormat]] = {
    "auto": "f16",
    "f16": "f16",
    "bf16": "bf16",
    "f32": "f32",
    "accuracy": "f32",
}
"""What engine cuda computes in; its float32 is exact."""


def build_engine(
    config: ModelConfig,
    *,
    image_hw: tuple[int, int],
    batch: int = 1,
    num_requests: int | None = None,
    num_threads: int | None = None,
    gpu: GpuWanted | None = None,
) -> Engine:
    """Build the engine that the settings ask for, for one shape of images.

    Args:
        config: Weights, engine and precision.
        image_hw: Height and width of the canvas, whole multiples of 32.
        batch: Images per request.
        num_requests: Requests in flight; one per usable core if not given. One request alone
            uses every core.
        num_threads: Cores used in all; every usable one if not given.
        gpu: For who takes boxes as well as predictions: how engine cuda is to batch and suppress.
            Without it that engine gives predictions, one request at a time. Others ignore it.
    """
    if config.weights is None:
        raise ConfigError("model.weights: no weights given; name a file made by: sightline import")
    if any(side < STRIDE or side % STRIDE for side in image_hw):
        raise ValueError(f"image_hw must be multiples of {STRIDE}, got {image_hw}")
    if any(count is not None and count < 1 for count in (batch, num_requests, num_threads)):
        raise ValueError(
            f"counts must be at least 1, got {batch=}, {num_requests=}, {num_threads=}"
        )
    card = read_card(config.weights)
    check_runs(config, card)
    wanted = Wanted(
        weights=config.weights,
        precision=config.precision,
        input_shape=(batch, *image_hw, 3),
        num_requests=num_requests,
        num_threads=num_threads,
        gpu=gpu,
    )
    _check_shape(wanted, card)
    return BUILDERS[choose_engine(config.engine, card)](wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An engine that was asked for, of settings that were checked."""

    weights: Path
    precision: Precision
    input_shape: tuple[int, int, int, int]
    num_requests: int | None
    num_threads: int | None
    gpu: GpuWanted | None


def check_runs(config: ModelConfig, card: Card) -> None:
    """Refuse settings that a file cannot be run with, and files that this machine cannot run."""
    assert config.weights is not None
    engine = choose_engine(config.engine, card)
    made_for = engine_of(card)
    if card.quantisation is not None and config.precision != "auto":
        raise EngineError(
            f"model.precision: {config.weights} is an int8 artefact, got "
            f"{config.precision}; choose auto, or give the weights it was exported from"
        )
    if made_for is not None and engine != made_for:
        kind = card.quantisation.precision if card.quantisation else made_for
        raise EngineError(
            f"model.engine: {config.weights} is an {kind} artefact, which only {made_for} runs, "
            f"got {config.engine}; choose {made_for}, or give the weights it was exported from"
        )
    if made_for is None and engine in ("onnx", "aoti"):
        raise EngineError(
            f"model.engine: {engine} runs artefacts, and {config.weights} holds weights; make one "
            f"with: sightline export {config.weights} --format {engine} --output FILE"
        )
    _check_precision(engine, config.precision)
    if card.built is not None:
        check_machine(config.weights, card.built)
    if card.quantisation is not None:
        check_openvino(config.weights, card.quantisation.openvino)


def _check_precision(engine: EngineName, precision: Precision) -> None:
    takes = PRECISIONS.get(engine, PRECISIONS["torch"])
    if precision in takes:
        return
    others = " or ".join(name for name, known in PRECISIONS.items() if precision in known)
    raise EngineError(
        f"model.precision: engine {engine} computes in {_NUMBERS.get(engine, 'f32 only')}, got "
        f"{precision}; choose {', '.join(takes[:-1])} or {takes[-1]}, or engine {others}"
    )


def engine_of(card: Card) -> ArtefactEngine | None:
    """Return the engine that an artefact was made for; nothing for weights."""
    if card.quantisation is not None:
        return "openvino"
    return card.built.engine if card.built else None


def choose_engine(name: EngineName, card: Card | None = None) -> EngineName:
    """Return the engine that `auto` stands for, for a file on this machine."""
    made_for = engine_of(card) if card else None
    if name == "auto" and made_for == "aoti":
        raise EngineError(
            "model.engine: this artefact is compiled code, which runs with your rights; "
            "choose aoti if you trust who made it"
        )
    if name == "auto" and made_for is not None:
        name = made_for
    if name in ("auto", "cuda"):
        lacking = what_lacks()
        if lacking is None:
            return "cuda"
        if name == "cuda":
            raise EngineError(f"model.engine: cuda needs {lacking}; engine auto does without")
    installed = importlib.util.find_spec("openvino") is not None
    if name == "openvino" and not installed:
        raise EngineError("model.engine: openvino is not installed; install it or choose torch")
    if name == "auto":
        return "openvino" if installed else "torch"
    return name


def _check_shape(wanted: Wanted, card: Card) -> None:
    fixed = card.built.input_shape if card.built else (-1, -1, -1, 3)
    pairs = zip(fixed, wanted.input_shape, strict=True)
    if any(side not in (-1, asked) for side, asked in pairs):
        batch, height, width, _ = fixed
        raise EngineError(
            f"{wanted.weights}: compiled for {batch} of {height}x{width}, got "
            f"{wanted.input_shape[0]} of {wanted.input_shape[1]}x{wanted.input_shape[2]}; "
            "export it for that with --canvas and --batch"
        )


def _build_openvino(wanted: Wanted) -> Engine:
    try:
        from model.engines.openvino import OpenVinoEngine, Plan
    except ImportError as failure:
        raise EngineError(
            f"model.engine: openvino does not start here ({failure}); choose torch"
        ) from failure
    plan = Plan.make(wanted.precision, wanted.input_shape, wanted.num_requests, wanted.num_threads)
    return OpenVinoEngine(wanted.weights, plan)


def _build_torch(wanted: Wanted) -> Engine:
    from model.engines.torch import TorchEngine

    return TorchEngine(wanted.weights, wanted.input_shape, wanted.num_threads)


def _build_inductor(wanted: Wanted) -> Engine:
    from model.engines.inductor import InductorEngine

    return InductorEngine(wanted.weights, wanted.input_shape, wanted.num_threads)


def _build_onnx(wanted: Wanted) -> Engine:
    from model.engines.onnx import OnnxEngine

    return OnnxEngine(wanted.weights, wanted.input_shape, wanted.num_threads)


def _build_aoti(wanted: Wanted) -> Engine:
    from model.engines.aoti import AotiEngine

    return AotiEngine(wanted.weights, wanted.input_shape, wanted.num_threads)


def _build_tensorrt(wanted: Wanted) -> Engine:
    from model.engines.tensorrt import TensorRtEngine

    return TensorRtEngine(wanted.weights, wanted.input_shape, wanted.precision)


def _build_cuda(wanted: Wanted) -> Engine:
    number_format = _NUMBER_FORMATS[wanted.precision]
    if wanted.gpu is None:
        from model.cuda.predictions import PredictionsEngine

        return PredictionsEngine(wanted.weights, wanted.input_shape, number_format)
    from model.cuda.compiling import compile_network
    from model.cuda.cuda_device import open_device
    from model.cuda.engine import CudaEngine

    plan = _engine_plan(wanted, wanted.gpu, number_format)
    return CudaEngine(plan, open_device(wanted.gpu.device), compile_network)


def _engine_plan(wanted: Wanted, gpu: GpuWanted, number_format: NumberFormat) -> EnginePlan:
    looks, height, width, _ = wanted.input_shape
    return EnginePlan(
        weights=wanted.weights,
        canvas_hw=(height, width),
        looks=looks,
        number_format=number_format,
        gpu=gpu,
    )


BUILDERS: Final[dict[EngineName, Callable[[Wanted], Engine]]] = {
    "openvino": _build_openvino,
    "torch": _build_torch,
    "inductor": _build_inductor,
    "onnx": _build_onnx,
    "aoti": _build_aoti,
    "tensorrt": _build_tensorrt,
    "cuda": _build_cuda,
}
