# SPDX-License-Identifier: Apache-2.0
"""Networks that are compiled, on a processor: what is kept, what is refused, what is told.

All but the slow one are of one convolution a level, which compiles in seconds. torch-tensorrt is
played as in `tests/model/engines/test_tensorrt.py`: with the signatures that it documents (2.8 to
2.13) as far as they are used.
"""

import dataclasses
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from model.cuda import compiling, draft
from model.cuda.candidates import Candidates
from model.cuda.compiling import compile_network
from model.cuda.draft import Draft, Inputs, Run, kept
from model.cuda.plan import Network, NetworkKind, NetworkPlan
from model.engines.cache import artefact_path
from model.errors import EngineError
from model.head import BINS, STRIDES, LevelLogits, Logits
from model.parity import make_pictures
from model.weights import load_detector, save_weights
from tests.model.builders import make_card, make_weights
from tests.model.conftest import skip_without_compiler

NUM_CLASSES = 3
WANTED = torch.tensor([True, False, True])


class Small(torch.nn.Module):
    """The least that gives logits; as a detector, without its size."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        outputs = 4 * BINS + NUM_CLASSES
        self.levels = torch.nn.ModuleList(
            torch.nn.Conv2d(3, outputs, stride, stride) for stride in STRIDES
        )

    def logits(self, canvases: torch.Tensor) -> Logits:
        maps = [4 * level(canvases) for level in self.levels]
        p3, p4, p5 = (LevelLogits(*each.split((4 * BINS, NUM_CLASSES), dim=1)) for each in maps)
        return p3, p4, p5


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file whose detector is `Small`."""
    monkeypatch.setattr(draft, "load_detector", lambda _: (Small().eval(), make_card()))
    path = tmp_path / "small.safetensors"
    save_weights(path, Small(), make_card())
    return path


@pytest.fixture
def plan(weights: Path) -> NetworkPlan:
    return make_plan(weights)


def test_engines_of_several_gpus_have_their_networks_compiled_one_after_another(
    plan: NetworkPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_it: list[int] = []
    most: list[int] = []

    def make(draft: Draft) -> Run:
        at_it.append(draft.plan.batch)
        time.sleep(0.02)
        most.append(len(at_it))
        at_it.pop()
        return draft.module

    monkeypatch.setitem(compiling.MAKERS, "eager", make)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(compile_network, [plan] * 4))
    assert most == [1] * 4


@pytest.fixture
def eager(plan: NetworkPlan) -> Network:
    return compile_network(plan)


def make_plan(weights: Path, how: NetworkKind = "eager", **changes: Any) -> NetworkPlan:
    made = NetworkPlan(
        weights=weights, canvas_hw=(64, 96), batch=2, number_format="f32", how=how, device=-1
    )
    return dataclasses.replace(made, **changes)


def make_inputs(dtype: torch.dtype = torch.float32) -> Inputs:
    pictures = torch.from_numpy(make_pictures((2, 64, 96))).permute(0, 3, 1, 2)
    return (pictures / 255).to(dtype), torch.tensor(0.3), WANTED


def expected_of(detector: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """What eager float32 torch gives for `make_inputs`."""
    with torch.inference_mode():
        return Candidates(detector.to(memory_format=torch.channels_last))(*make_inputs())


def assert_near(
    actual: tuple[torch.Tensor, torch.Tensor], expected: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """The same candidates, but for the last bits of boxes and scores."""
    torch.testing.assert_close(actual[0], expected[0], atol=0.02, rtol=0)
    assert actual[1].dtype == torch.int64
    places = [keys & 0xFFFFFFFF for keys in (actual[1], expected[1])]
    assert torch.equal(*places)
    bits = [keys >> 32 for keys in (actual[1], expected[1])]
    assert (bits[0] - bits[1]).abs().max() < 4096


def refusing(message: str) -> Callable[[Draft], Run]:
    def refuse(_: Draft) -> Run:
        raise RuntimeError(f"{message}\nand where")

    return refuse


def test_an_eager_network_gives_what_the_detector_gives(eager: Network) -> None:
    assert (eager.how, eager.num_anchors) == ("eager", 126)
    assert_near(eager(*make_inputs()), expected_of(Small()))


def test_half_precision_goes_in_and_float32_comes_out(plan: NetworkPlan) -> None:
    network = compile_network(dataclasses.replace(plan, number_format="bf16"))
    boxes, keys = network(*make_inputs(torch.bfloat16))
    assert (boxes.dtype, boxes.shape, keys.shape) == (torch.float32, (2, 126, 4), (2, 126))


@pytest.mark.parametrize(
    "other",
    [
        lambda canvases: canvases[:1],
        lambda canvases: canvases.contiguous(),
        lambda canvases: canvases.half(),
    ],
    ids=["another batch", "channels first", "another number format"],
)
def test_canvases_it_was_not_compiled_for_are_refused(
    eager: Network, other: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    canvases, min_score, wanted = make_inputs()
    with pytest.raises(ValueError, match=r"canvases must be torch\.float32 of shape"):
        eager(other(canvases), min_score, wanted)


def test_one_image_of_a_larger_batch_may_be_given(eager: Network, plan: NetworkPlan) -> None:
    canvases, min_score, wanted = make_inputs()
    network = compile_network(dataclasses.replace(plan, batch=1))
    boxes, _ = network(canvases[:1], min_score, wanted)
    expected, _ = eager(canvases, min_score, wanted)
    torch.testing.assert_close(boxes, expected[:1], atol=0.02, rtol=0)


def test_the_cache_key_names_all_it_depends_on(
    plan: NetworkPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (other_weights := tmp_path / "other.safetensors").write_bytes(plan.weights.read_bytes() + b" ")
    changes: list[dict[str, Any]] = [
        {},
        {"weights": other_weights},
        {"canvas_hw": (96, 64)},
        {"batch": 1},
        {"number_format": "f16"},
    ]
    made = [Draft(dataclasses.replace(plan, **change)) for change in changes]
    entries = [artefact_path(one.key("aoti")) for one in made]
    entries.append(artefact_path(made[0].key("tensorrt")))
    for name, value in (
        ("NETWORK_VERSION", 0),
        ("installed_version", lambda package: f"another {package}"),
        ("describe_device", lambda _: ["another device"]),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(draft, name, value)
            entries.append(artefact_path(made[0].key("aoti")))
    assert len(set(entries)) == 9
    assert artefact_path(made[0].key("aoti")) == entries[0]


class Workshop:
    """Makes and loads compiled networks that are notes of their number."""

    def __init__(self) -> None:
        self.num_made = 0
        self.refused: set[bytes] = set()
        self.reason = "made for another driver"

    def make(self, path: Path) -> None:
        self.num_made += 1
        path.write_bytes(b"network %d" % self.num_made)

    def load(self, path: Path) -> Run:
        content = path.read_bytes()
        path.unlink()

        def run(*_: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            if content in self.refused:
                raise RuntimeError(self.reason)
            return torch.zeros(0), torch.tensor(int(content.split()[1]))

        return run

    def build(self, plan: NetworkPlan) -> int:
        """The number of the network that one gets."""
        built = Draft(plan)
        return int(kept(built, "aoti", self.make, self.load)(*built.examples)[1])


def test_a_network_is_compiled_once(plan: NetworkPlan) -> None:
    workshop = Workshop()
    assert [workshop.build(plan), workshop.build(plan)] == [1, 1]
    assert workshop.build(dataclasses.replace(plan, batch=3)) == 2


def test_a_network_that_does_not_run_any_more_is_compiled_again(plan: NetworkPlan) -> None:
    workshop = Workshop()
    workshop.build(plan)
    workshop.refused.add(b"network 1")
    assert [workshop.build(plan), workshop.build(plan)] == [2, 2]


def test_a_network_that_never_ran_is_not_kept(plan: NetworkPlan) -> None:
    workshop = Workshop()
    workshop.refused.add(b"network 1")
    with pytest.raises(RuntimeError, match="another driver"):
        workshop.build(plan)
    assert workshop.build(plan) == 2


@pytest.mark.parametrize("told", [True, False])
def test_a_network_that_lacks_memory_is_not_compiled_again(
    plan: NetworkPlan, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    """Compiled code may only say that a call failed; torch has counted why."""
    workshop = Workshop()
    workshop.build(plan)
    workshop.refused.add(b"network 1")
    workshop.reason = "CUDA error: out of memory" if told else "API call failed"
    if not told:
        counts = iter(range(2))
        monkeypatch.setattr(draft, "num_refused", lambda _: next(counts))
    with pytest.raises(torch.OutOfMemoryError):
        workshop.build(plan)
    assert workshop.num_made == 1


def test_auto_takes_the_next_that_compiles_and_says_so(
    weights: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(compiling.MAKERS, "aoti", refusing("CUDA_HOME is not set"))
    monkeypatch.setitem(compiling.MAKERS, "inductor", refusing("no triton"))
    network = compile_network(make_plan(weights, "auto"))
    assert network.how == "eager (aoti refused: CUDA_HOME is not set; inductor refused: no triton)"
    assert "aoti refused: CUDA_HOME is not set" in caplog.text


def test_what_was_asked_for_by_name_is_not_replaced(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(
        EngineError, match=r"cannot be compiled.*aoti refused.*apt-get install"
    ) as e:
        compile_network(make_plan(weights, "aoti"))
    assert "\n" not in str(e.value)


def test_too_little_memory_is_no_reason_to_compile_otherwise(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(_: Draft) -> Run:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setitem(compiling.MAKERS, "aoti", exhausted)
    with pytest.raises(torch.OutOfMemoryError):
        compile_network(make_plan(weights, "auto"))


@pytest.mark.compiled
def test_a_compiled_network_gives_what_eager_torch_gives_and_is_kept(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_without_compiler()
    boxes, keys = check_compiled(weights, Small())
    monkeypatch.setattr(compiling, "compile_package", None)
    again = compile_network(make_plan(weights, "aoti"))(*make_inputs())
    assert torch.equal(again[0], boxes)
    assert torch.equal(again[1], keys)


@pytest.mark.slow
def test_a_whole_detector_compiles_with_its_ranking(tmp_path: Path) -> None:
    """Size T took 64 s of processor time, 142 s on two cores that had other work."""
    weights = make_weights(tmp_path)
    check_compiled(weights, load_detector(weights)[0])


def check_compiled(weights: Path, detector: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Compile a network and hold it against eager torch; returns what it gave."""
    network = compile_network(make_plan(weights, "auto"))
    boxes, keys = network(*make_inputs())
    assert network.how == "aoti"
    assert boxes.is_contiguous()
    assert_near((boxes, keys), expected_of(detector))
    return boxes, keys


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A machine with CUDA and torch-tensorrt, as far as it can be told; `calls` of `compile`."""
    made: list[dict[str, Any]] = []

    def compile_program(
        exported_program: torch.export.ExportedProgram,
        inputs: list[torch.Tensor] | None = None,
        *,
        disable_tf32: bool = False,
        require_full_compilation: bool = False,
        use_python_runtime: bool = False,
        use_explicit_typing: bool = False,
    ) -> torch.nn.Module:
        made.append({key: value for key, value in locals().items() if key != "made"})
        return exported_program.module()

    def save(module: torch.nn.Module, file_path: str, *, inputs: list[torch.Tensor]) -> None:
        torch.export.save(torch.export.export(module, tuple(inputs)), file_path)

    fake = ModuleType("torch_tensorrt")
    fake.dynamo = ModuleType("torch_tensorrt.dynamo")
    fake.dynamo.compile = compile_program
    fake.save = save
    monkeypatch.setitem(sys.modules, "torch_tensorrt", fake)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    return made


def test_tensorrt_is_called_as_documented_and_its_engine_is_kept(
    weights: Path, calls: list[dict[str, Any]]
) -> None:
    network = compile_network(make_plan(weights, "tensorrt"))
    assert network.how == "tensorrt"
    assert_near(network(*make_inputs()), expected_of(Small()))
    (call,) = calls
    assert [tuple(canvases.shape) for canvases in call["inputs"]] == [(2, 3, 64, 96)]
    assert (call["require_full_compilation"], call["use_explicit_typing"]) == (True, True)
    assert (call["use_python_runtime"], call["disable_tf32"]) == (False, True)
    compile_network(make_plan(weights, "tensorrt"))
    assert len(calls) == 1


def test_a_refused_full_compilation_names_its_fallback(
    weights: Path, calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the model is not fully supported")

    monkeypatch.setattr(sys.modules["torch_tensorrt"].dynamo, "compile", refuse)
    monkeypatch.setattr("torch.export.export", lambda *_: None)
    monkeypatch.setitem(compiling.MAKERS, "aoti", compiling.MAKERS["eager"])
    network = compile_network(make_plan(weights, "tensorrt"))
    assert network.how == "aoti (tensorrt refused: the model is not fully supported)"
    assert calls == []


def test_tensorrt_that_is_not_here_is_an_error(weights: Path) -> None:
    with pytest.raises(EngineError, match=r"needs torch-tensorrt.*'\.\[tensorrt\]'"):
        compile_network(make_plan(weights, "tensorrt"))
