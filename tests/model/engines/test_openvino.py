# SPDX-License-Identifier: Apache-2.0
"""The OpenVINO engine: results, requests in flight, and what it keeps on disk."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openvino
import pytest

from model.config import ModelConfig, Precision
from model.engines import Engine, build_engine, openvino_graph
from model.engines import openvino as engine_module
from model.engines.openvino import OpenVinoEngine, Plan, choose_precision
from model.engines.openvino_graph import build_graph
from model.errors import EngineError, WeightsError
from model.weights import save_weights
from tests.model.builders import make_card, make_detector

pytestmark = pytest.mark.compiled

IMAGE_HW = (64, 96)


@pytest.fixture(scope="module")
def engine(weights: Path) -> Iterator[Engine]:
    """Exact float32, two requests in flight."""
    built = make_engine(weights)
    yield built
    built.close()


def make_engine(
    weights: Path, *, precision: Precision = "accuracy", num_requests: int = 2, batch: int = 1
) -> Engine:
    config = ModelConfig(weights=weights, engine="openvino", precision=precision)
    return build_engine(config, image_hw=IMAGE_HW, batch=batch, num_requests=num_requests)


@pytest.fixture
def _quick_build(
    weights: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Convert the detector from torch once; what is tested here comes after that."""
    saved = tmp_path_factory.getbasetemp() / "graph.xml"
    if not saved.exists():
        openvino.save_model(build_graph(weights, (1, *IMAGE_HW, 3)), saved, compress_to_fp16=False)
    monkeypatch.setattr(openvino_graph, "build_graph", lambda *_: openvino.Core().read_model(saved))


def make_images(batch: int = 1, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (batch, *IMAGE_HW, 3), dtype=np.uint8)


def torch_result(weights: Path, images: np.ndarray) -> np.ndarray:
    config = ModelConfig(weights=weights, engine="torch")
    return build_engine(config, image_hw=IMAGE_HW, batch=len(images)).infer(images)


@pytest.mark.parametrize("batch", [1, 2])
def test_accuracy_is_eager_float32(weights: Path, batch: int) -> None:
    built = make_engine(weights, batch=batch)
    images = make_images(batch)
    expected = torch_result(weights, images)
    actual = built.infer(images)
    built.close()
    assert expected[:, 4:].max() - expected[:, 4:].min() > 0.5
    assert np.abs(actual[:, :4] - expected[:, :4]).max() < 0.02
    assert np.abs(actual[:, 4:] - expected[:, 4:]).max() < 1e-4


def test_an_engine_says_what_it_is(engine: Engine) -> None:
    assert (engine.name, engine.precision) == ("openvino", "f32")
    assert engine.classes == ("person", "bicycle", "car")
    assert engine.input_shape == (1, 64, 96, 3)
    assert engine.output_shape == (1, 7, 8 * 12 + 4 * 6 + 2 * 3)
    assert engine.num_requests == 2


@pytest.mark.parametrize("precision", ["auto", "accuracy"])
def test_results_do_not_depend_on_what_runs_beside(weights: Path, precision: Precision) -> None:
    built = make_engine(weights, precision=precision)
    images = [make_images(seed=seed) for seed in range(12)]
    alone = [built.infer(image) for image in images]
    together = run_in_flight(built, images)
    built.close()
    for first, second in zip(alone, together, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("precision", ["auto", "accuracy"])
def test_results_do_not_depend_on_their_batch_mates(weights: Path, precision: Precision) -> None:
    """Neither on what they are nor on the place among them."""
    built = make_engine(weights, precision=precision, batch=5)
    images = make_images(batch=5)
    others = make_images(batch=5, seed=1)
    others[2] = 0
    others[3] = images[1]
    expected = built.infer(images)[1]
    beside_others = built.infer(others)[3]
    built.close()
    np.testing.assert_array_equal(beside_others, expected)


def run_in_flight(engine: Engine, images: list[np.ndarray]) -> list[np.ndarray]:
    """Keep as many requests running as the engine takes."""
    results = [np.full(engine.output_shape, np.nan, np.float32) for _ in images]
    room = threading.Semaphore(engine.num_requests)
    failures: list[BaseException | None] = []

    def on_done(failure: BaseException | None) -> None:
        failures.append(failure)
        room.release()

    for image, result in zip(images, results, strict=True):
        room.acquire()
        engine.start(image, result, on_done)
    for _ in range(engine.num_requests):
        room.acquire()
    for _ in range(engine.num_requests):
        room.release()
    assert failures == [None] * len(images)
    return results


def test_a_result_does_not_depend_on_its_batch_mates(weights: Path) -> None:
    built = make_engine(weights, batch=2)
    first, second, third = (make_images(seed=seed) for seed in range(3))
    beside_second = built.infer(np.concatenate((first, second)))[0]
    beside_third = built.infer(np.concatenate((first, third)))[0]
    built.close()
    np.testing.assert_array_equal(beside_second, beside_third)


def test_results_are_written_into_the_callers_memory(engine: Engine) -> None:
    pool = np.full((3, *engine.output_shape), -1, np.float32)
    ended = threading.Event()
    engine.start(make_images(), pool[1], lambda _: ended.set())
    assert ended.wait(10)
    np.testing.assert_array_equal(pool[1], engine.infer(make_images()))
    assert (pool[[0, 2]] == -1).all()


def test_read_only_images_are_read(engine: Engine) -> None:
    images = make_images()
    expected = engine.infer(images)
    images.setflags(write=False)
    np.testing.assert_array_equal(engine.infer(images), expected)


@pytest.mark.parametrize(
    ("images", "predictions", "expected"),
    [
        pytest.param((1, 64, 64, 3), (1, 7, 126), "images must be uint8 of shape", id="images"),
        pytest.param((1, 64, 96, 3), (1, 7, 125), "predictions must be float32", id="room"),
    ],
)
def test_memory_of_another_shape_is_refused(
    engine: Engine, images: tuple[int, ...], predictions: tuple[int, ...], expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        engine.start(np.zeros(images, np.uint8), np.zeros(predictions, np.float32), print)


def test_memory_that_cannot_be_used_directly_is_refused(engine: Engine) -> None:
    turned = np.zeros((1, 3, 64, 96), np.uint8).transpose(0, 2, 3, 1)
    with pytest.raises(ValueError, match="images must be C-contiguous"):
        engine.start(turned, np.zeros(engine.output_shape, np.float32), print)
    fixed = np.zeros(engine.output_shape, np.float32)
    fixed.setflags(write=False)
    with pytest.raises(ValueError, match="predictions must be writeable"):
        engine.start(make_images(), fixed, print)


def test_a_failing_request_is_told_and_the_next_one_runs(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = make_engine(weights, num_requests=1)
    whole = engine_module.openvino.Tensor

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("Exception from src/file.cpp:1:\nout of order\n")

    with monkeypatch.context() as patch:
        patch.setattr(engine_module.openvino, "Tensor", broken)
        with pytest.raises(EngineError, match="OpenVINO failed: out of order"):
            built.infer(make_images())
    assert engine_module.openvino.Tensor is whole
    assert np.isfinite(built.infer(make_images())).all()
    built.close()


def test_closing_finishes_what_was_started(weights: Path) -> None:
    built = make_engine(weights)
    ended: list[BaseException | None] = []
    results = [np.zeros(built.output_shape, np.float32) for _ in range(2)]
    for result in results:
        built.start(make_images(), result, ended.append)
    built.close()
    built.close()
    assert ended == [None, None]
    with pytest.raises(EngineError, match="closed"):
        built.infer(make_images())


def test_bf16_runs_where_the_processor_has_it(weights: Path) -> None:
    if choose_precision("auto") != "bf16":
        with pytest.raises(EngineError, match="does not compute in bf16"):
            choose_precision("bf16")
        pytest.skip("this processor does not compute in bf16")
    built = make_engine(weights, precision="bf16")
    result = built.infer(make_images())
    built.close()
    assert built.precision == "bf16"
    assert np.isfinite(result).all()
    assert not np.array_equal(result, torch_result(weights, make_images()))


@pytest.mark.usefixtures("_quick_build")
def test_a_cached_engine_gives_the_same_without_being_built(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path))
    expected = infer_and_close(weights)
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(openvino_graph, "build_graph", None)
    np.testing.assert_array_equal(infer_and_close(weights), expected)


def infer_and_close(weights: Path) -> np.ndarray:
    built = make_engine(weights)
    result = built.infer(make_images())
    built.close()
    return result


@pytest.mark.usefixtures("_quick_build")
@pytest.mark.parametrize("damage", ["cut", "changed", "refused"])
def test_a_damaged_cache_entry_is_built_again(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path))
    expected = infer_and_close(weights)
    (entry,) = tmp_path.iterdir()
    whole = entry.read_bytes()
    if damage == "refused":
        engine_module.write_artefact(entry, b"not a model")
    else:
        entry.write_bytes(whole[: len(whole) // 2] + (b"" if damage == "cut" else b"x" * 9))
    np.testing.assert_array_equal(infer_and_close(weights), expected)
    assert len(entry.read_bytes()) == len(whole)


@pytest.mark.usefixtures("_quick_build")
def test_other_weights_are_another_entry(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))
    infer_and_close(weights)
    other = tmp_path / "other.safetensors"
    save_weights(other, make_detector(num_classes=3), make_card(form="unfused"))
    infer_and_close(other)
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.usefixtures("_quick_build")
def test_a_cache_that_cannot_be_written_costs_one_warning(
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("SIGHTLINE_CACHE", str(blocked / "cache"))
    for _ in range(2):
        assert np.isfinite(infer_and_close(weights)).all()
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "SIGHTLINE_CACHE" in warnings[0].getMessage()


def test_a_cached_engine_starts_without_torch(weights: Path, engine: Engine) -> None:
    program = f"""
import sys
from pathlib import Path
from model.config import ModelConfig
from model.engines import build_engine
config = ModelConfig(weights=Path({str(weights)!r}), engine="openvino", precision="accuracy")
engine = build_engine(config, image_hw={IMAGE_HW}, num_requests=2)
engine.close()
print("torch" in sys.modules)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert engine.num_requests == 2
    assert ran.stdout == "False\n"


def test_a_signal_is_handled_after_engines_ended_in_the_order_they_began(
    weights: Path, engine: Engine
) -> None:
    """In the thread that built them, whose stack for signals must still be there."""
    program = f"""
import gc, mmap, signal
from pathlib import Path
from model.config import ModelConfig
from model.engines import build_engine
config = ModelConfig(weights=Path({str(weights)!r}), engine="openvino", precision="accuracy")
engines = [build_engine(config, image_hw={IMAGE_HW}, num_requests=2) for _ in range(2)]
while engines:
    engines.pop(0).close()
    gc.collect()
blocks = [mmap.mmap(-1, 4096, prot=mmap.PROT_READ) for _ in range(64)]  # where it was, if it went
signal.signal(signal.SIGHUP, lambda number, frame: print("handled"))
signal.raise_signal(signal.SIGHUP)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert engine.num_requests == 2
    assert (ran.returncode, ran.stdout) == (0, "handled\n")


def test_importing_it_reports_to_nobody_and_leaves_nothing_at_home(tmp_path: Path) -> None:
    program = "import sys, model.engines.openvino; print(sys.modules['openvino_telemetry'])"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "HOME": str(tmp_path)},
        check=True,
    )
    assert ran.stdout == "None\n"
    assert list(tmp_path.iterdir()) == []


def test_a_plan_fills_in_the_cores_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3})
    plan = Plan.make("f32", (1, 64, 64, 3), None, None)
    assert (plan.num_requests, plan.num_threads) == (4, 4)
    assert plan.properties()["NUM_STREAMS"] == 4
    alone = Plan.make("accuracy", (1, 64, 64, 3), 1, None)
    assert (alone.properties()["NUM_STREAMS"], alone.num_threads) == (1, 4)
    assert alone.properties()["EXECUTION_MODE_HINT"] == "ACCURACY"


def test_wrong_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="No such file"):
        OpenVinoEngine(tmp_path / "none", Plan.make("f32", (1, 64, 64, 3), 1, 1))
