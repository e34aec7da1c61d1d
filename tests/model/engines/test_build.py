# SPDX-License-Identifier: Apache-2.0
"""Which engine is chosen, and what is refused before any is imported."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from model.config import EngineName, ModelConfig, Precision, Suppression
from model.cuda.plan import EnginePlan, GpuWanted
from model.engines import build, build_engine
from model.errors import ConfigError, EngineError
from tests.model.builders import make_card


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


@pytest.fixture
def _gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has all that engine cuda needs, as far as it is asked beforehand."""
    monkeypatch.setattr(build, "what_lacks", lambda: None)


def test_cuda_without_a_gpu_says_what_was_looked_for_and_the_way_out(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "what_lacks", lambda: "an NVIDIA GPU, and there is none")
    with pytest.raises(
        EngineError, match=r"cuda needs an NVIDIA GPU, and .*; engine auto does without$"
    ):
        build_engine(ModelConfig(weights=weights, engine="cuda"), image_hw=(64, 64))


@pytest.mark.usefixtures("_gpu")
def test_auto_is_cuda_for_weights_where_there_is_a_gpu() -> None:
    assert build.choose_engine("auto") == "cuda"
    assert build.choose_engine("auto", make_card()) == "cuda"
    artefact = make_card().model_copy(update={"built": SimpleNamespace(engine="onnx")})
    assert build.choose_engine("auto", artefact) == "onnx"
    assert build.choose_engine("openvino", make_card()) == "openvino"


@pytest.mark.usefixtures("_gpu")
@pytest.mark.parametrize(
    ("engine", "precision", "said"),
    [
        ("cuda", "f16", None),
        ("cuda", "bf16", None),
        ("cuda", "f32", None),
        ("cuda", "accuracy", None),
        ("openvino", "f16", "computes in f32 or bf16, got f16; .* or engine cuda$"),
        ("torch", "f16", "computes in f32 only, got f16; .* or engine cuda$"),
        ("inductor", "bf16", "choose auto, f32 or accuracy, or engine openvino or cuda$"),
    ],
)
def test_an_engine_takes_the_precisions_it_computes_in(
    weights: Path, engine: EngineName, precision: Precision, said: str | None
) -> None:
    config = ModelConfig(weights=weights, engine=engine, precision=precision)
    if said is None:
        build.check_runs(config, make_card())
        return
    with pytest.raises(EngineError, match=said):
        build.check_runs(config, make_card())


@pytest.mark.usefixtures("_gpu")
def test_engine_cuda_is_told_all_that_was_asked_for(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[tuple[EnginePlan, object]] = []
    engines, devices = ModuleType("model.cuda.engine"), ModuleType("model.cuda.cuda_device")
    engines.CudaEngine = lambda plan, device, _: built.append((plan, device))
    devices.open_device = lambda index: f"GPU {index}"
    monkeypatch.setitem(sys.modules, "model.cuda.engine", engines)
    monkeypatch.setitem(sys.modules, "model.cuda.cuda_device", devices)
    wanted = GpuWanted(
        device=1,
        batch_sizes=(1, 4),
        in_flight=3,
        window_ms=2.5,
        file_batch=4,
        arena_mib=64,
        suppression=Suppression(min_score=0.1),
        class_ids=(0, 2),
        how="tensorrt",
    )
    config = ModelConfig(weights=weights, engine="cuda", precision="bf16")
    build_engine(config, image_hw=(64, 96), batch=3, gpu=wanted)
    ((plan, device),) = built
    assert device == "GPU 1"
    assert plan == EnginePlan(
        weights=weights, canvas_hw=(64, 96), looks=3, number_format="bf16", gpu=wanted
    )


@pytest.mark.usefixtures("_gpu")
@pytest.mark.parametrize(
    ("precision", "number_format"), [("auto", "f16"), ("bf16", "bf16"), ("accuracy", "f32")]
)
def test_who_wants_predictions_of_engine_cuda_gets_them(
    weights: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision, number_format: str
) -> None:
    built: list[tuple[object, ...]] = []
    made = ModuleType("model.cuda.predictions")
    made.PredictionsEngine = lambda *given: built.append(given)
    monkeypatch.setitem(sys.modules, "model.cuda.predictions", made)
    config = ModelConfig(weights=weights, engine="cuda", precision=precision)
    build_engine(config, image_hw=(64, 96), batch=2)
    assert built == [(weights, (2, 64, 96, 3), number_format)]
