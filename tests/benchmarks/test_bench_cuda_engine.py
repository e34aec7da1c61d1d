# SPDX-License-Identifier: Apache-2.0
"""What the benchmark of the GPU's engine works out, as far as no GPU is needed for it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.cuda.candidates import NONE
from model.cuda.coded import FORMATS
from model.cuda.compiling import compile_network
from model.cuda.plan import NetworkPlan
from model.errors import EngineError
from model.scales import SCALES
from tests.benchmarks import bench_cuda_engine as bench


def make_plan(weights: Path) -> NetworkPlan:
    return NetworkPlan(
        weights=weights, canvas_hw=(64, 96), batch=2, number_format="f16", how="eager", device=-1
    )


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bench.random_weights("T", tmp_path_factory.mktemp("weights"))


def test_without_a_gpu_it_says_so_and_ends_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    with pytest.raises(SystemExit) as ended:
        bench.main(["--scales", "T"])
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == (
        "",
        "bench_cuda_engine: measures an NVIDIA GPU, and here torch finds no GPU\n",
    )


@pytest.mark.parametrize("scale", SCALES)
def test_operations_go_by_the_area_of_the_canvas(scale: str) -> None:
    whole = bench.gflops_of(scale, (640, 640))
    assert bench.gflops_of(scale, (320, 640)) == pytest.approx(whole / 2, abs=1e-3)
    assert whole > 7


def test_the_share_of_the_peak_is_that_of_the_operations() -> None:
    times_us = {"median": 3000.0, "p90": 4000.0, "p99": 5000.0}
    figures = bench.summed_up(times_us, batch=30, gflops=8.0, peak_tflops=800.0)
    assert (figures["p50_ms"], figures["p99_ms"], figures["images_per_s"]) == (3.0, 5.0, 10_000.0)
    assert figures["share_of_peak"] == 0.1  # 10000 times 8e9 of 8e14


def test_differences_are_those_of_the_boxes_that_are_shown() -> None:
    boxes = torch.zeros(1, 3, 4)
    scores = torch.tensor([[0.9, 0.5, 0.1]])
    keys = ((0x7FFFFFFF - scores.view(torch.int32).to(torch.int64)) << 32) | 7
    moved = boxes.clone()
    moved[0, 1, 2], moved[0, 2, 0] = 0.5, 100.0
    found = bench.apart((moved, keys), (boxes, keys))
    assert (found["boxes"], found["box_px_max"], found["score_max"]) == (2, 0.5, 0.0)
    torch.testing.assert_close(bench.scores_of(keys), scores)
    assert bench.scores_of(torch.full((1, 1), NONE)).item() == 0.0
    with pytest.raises(EngineError, match="nothing to compare"):
        bench.apart((boxes, torch.full((1, 3), NONE)), (boxes, torch.full((1, 3), NONE)))


def test_a_network_is_compared_with_the_one_in_float32(weights: Path) -> None:
    plan = make_plan(weights)
    inputs = bench.make_inputs(plan)
    exact = compile_network(replace(plan, number_format="f32"))(inputs[0].float(), *inputs[1:])
    found = bench.apart(compile_network(plan)(*inputs), exact)
    assert found["boxes"] > 10
    assert 0 < found["box_px_max"] < 1
    assert 0 < found["score_max"] < 0.05


def test_pictures_are_whole_nv12() -> None:
    picture = bench.nv12(0)
    coded = picture.coded
    height, width = coded.coded_hw
    rows = [height >> component.shift_y for component in FORMATS["nv12"].components]
    ends = [coded.offsets[0] + rows[0] * width, coded.offsets[1] + rows[1] * width]
    assert ends == [coded.offsets[1], coded.num_bytes]
    assert picture.pixels.nbytes == coded.num_bytes


def test_weights_are_taken_by_their_size(weights: Path, tmp_path: Path) -> None:
    options = bench.parse(["--scales", "T", "--weights", str(weights), "--canvas", "64x96"])
    assert bench.find_weights(options, tmp_path) == {"T": weights}
    assert options.canvas == (64, 96)
