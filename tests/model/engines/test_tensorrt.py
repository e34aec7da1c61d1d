# SPDX-License-Identifier: Apache-2.0
"""The TensorRT engine against the interface that torch-tensorrt documents; it was never run.

The fake has the documented signature of `torch_tensorrt.dynamo.compile` (2.6 to main) as far as
the engine uses it, and runs the program it is given by torch, on the processor.
"""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from model.config import ModelConfig
from model.engines import build_engine
from model.errors import EngineError
from model.parity import difference, make_pictures, run_once

pytestmark = pytest.mark.compiled

PICTURES = make_pictures((1, 64, 96))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A machine with CUDA and torch-tensorrt, as far as the engine can tell."""
    made: list[dict[str, Any]] = []

    def compile_program(
        exported_program: torch.export.ExportedProgram,
        inputs: list[torch.Tensor] | None = None,
        *,
        disable_tf32: bool = False,
    ) -> torch.nn.Module:
        made.append({"inputs": inputs, "disable_tf32": disable_tf32})
        return exported_program.module()

    fake = ModuleType("torch_tensorrt")
    fake.dynamo = ModuleType("torch_tensorrt.dynamo")
    fake.dynamo.compile = compile_program
    zeros = torch.zeros
    monkeypatch.setitem(sys.modules, "torch_tensorrt", fake)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)
    monkeypatch.setattr(torch.nn.Module, "cuda", lambda module: module)
    monkeypatch.setattr(torch, "zeros", lambda *shape, **_: zeros(*shape))
    return made


def test_what_is_compiled_is_what_runs(weights: Path, calls: list[dict[str, Any]]) -> None:
    config = ModelConfig(weights=weights, engine="tensorrt", precision="accuracy")
    engine = build_engine(config, image_hw=(64, 96))
    (call,) = calls
    assert [tuple(example.shape) for example in call["inputs"]] == [(1, 3, 64, 96)]
    assert call["disable_tf32"]
    box_px, score = difference(engine.infer(PICTURES), run_once(weights, "torch", PICTURES))
    assert (engine.name, engine.output_shape) == ("tensorrt", (1, 7, 126))
    assert box_px < 0.02
    assert score < 1e-4


def test_tf32_is_left_alone_unless_exact_results_are_asked_for(
    weights: Path, calls: list[dict[str, Any]]
) -> None:
    build_engine(ModelConfig(weights=weights, engine="tensorrt"), image_hw=(64, 96))
    assert not calls[0]["disable_tf32"]


def test_a_failing_compilation_is_one_line(
    weights: Path, calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no kernel\nat somewhere")

    monkeypatch.setattr(sys.modules["torch_tensorrt"].dynamo, "compile", broken)
    with pytest.raises(EngineError, match=r"TensorRT cannot compile this: no kernel$"):
        build_engine(ModelConfig(weights=weights, engine="tensorrt"), image_hw=(64, 96))
    assert calls == []


def test_what_a_machine_lacks_is_named(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ModelConfig(weights=weights, engine="tensorrt")
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)
    with pytest.raises(EngineError, match=r"needs torch-tensorrt.*'\.\[tensorrt\]'"):
        build_engine(config, image_hw=(64, 96))
    monkeypatch.setitem(sys.modules, "torch_tensorrt", ModuleType("torch_tensorrt"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(EngineError, match="needs CUDA"):
        build_engine(config, image_hw=(64, 96))
