# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks of the GPU path compute without a GPU."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from model.config import Suppression
from model.cuda.coded import FORMATS
from model.suppression import suppress
from tests.benchmarks import bench_cuda_preprocess, bench_cuda_suppress
from tests.benchmarks.bench_cuda_preprocess import Case, cases, errors
from tests.benchmarks.bench_cuda_suppress import (
    Found,
    at_once,
    by_image,
    make_predictions,
    ranked_keys,
)
from tests.benchmarks.cuda_timing import percentiles
from tests.model.cuda.coded_pictures import Shot
from tests.model.cuda.test_suppress_kernel import ranked


@pytest.mark.parametrize("program", [bench_cuda_preprocess, bench_cuda_suppress])
def test_without_a_gpu_it_says_so_in_one_line(
    program: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = program.__name__.rsplit(".", maxsplit=1)[-1]
    monkeypatch.setattr(sys, "argv", [name])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    with pytest.raises(SystemExit) as stopped:
        program.main()
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert said.err == f"{name}: measures an NVIDIA GPU, and here torch finds no GPU\n"
    assert not said.out


def test_the_bytes_are_those_of_planes_and_canvases() -> None:
    canvas = 3 * 384 * 640
    assert Case("nv12", "1080p", 1).moved_bytes == 1920 * 1080 * 3 // 2 + canvas * 2
    assert Case("p010le", "1080p", 4, "f32").moved_bytes == 4 * (1920 * 1080 * 3 + canvas * 4)
    assert Case("rgb24", "720p", 2).moved_bytes == 2 * (1280 * 720 * 3 + canvas * 2)


def test_every_format_and_batch_is_measured_beyond_the_cache() -> None:
    measured = list(cases(quick=False))
    assert {case.pixel_format for case in measured} == set(FORMATS)
    assert {case.batch for case in measured} == {1, 8, 32, 64}
    assert set(cases(quick=True)) < set(measured)
    for case in measured:
        assert case.launches >= 2
        assert case.launches * case.moved_bytes > 2 * 60e6


class ReferenceKernels:
    """Gives what is expected, rounded to the numbers that are asked for."""

    def letterbox(
        self, shots: list[Shot], canvas_hw: tuple[int, int], *, number_format: str
    ) -> np.ndarray:
        kind = {"f32": np.float32, "f16": np.float16}[number_format]
        return np.stack([shot.expected(canvas_hw) / 255 for shot in shots]).astype(kind)


def test_errors_are_measured_on_random_and_on_real_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(bench_cuda_preprocess.SIZES, "1080p", (54, 96))
    monkeypatch.setattr(bench_cuda_preprocess, "LONG_SIDE", 32)
    picture = np.random.default_rng(0).integers(0, 256, (60, 64), np.uint8)
    np.savez(tmp_path / "frames.npz", street=picture)
    told = list(errors(ReferenceKernels(), tmp_path / "frames.npz"))
    assert [each["picture"] for each in told[::2]] == [*FORMATS, "frames.npz:street"]
    for each in told:
        assert each["mean_levels"] <= each["largest_levels"]
        assert each["largest_levels"] < {"f32": 0.001, "f16": 0.1}[each["number_format"]]
    assert max(each["largest_levels"] for each in told if each["number_format"] == "f16") > 0.01


def test_a_spread_is_of_all_runs() -> None:
    assert percentiles([float(n) for n in range(100, 0, -1)]) == {
        "median": 50.5, "p90": 91.0, "p99": 100.0, "runs": 100,
    }  # fmt: skip


def test_random_predictions_are_like_a_detectors() -> None:
    predictions = make_predictions(40, 0)
    assert predictions.shape == (84, 8400)
    best = predictions[4:].max(axis=0)
    assert 0.2 < (best > 0.001).mean() < 0.9
    assert 200 < (best > 0.25).sum() < 4000
    assert 40 <= len(suppress(predictions, Suppression(min_score=0.25))) < 300


def test_both_sides_rank_and_keep_the_same() -> None:
    """With a suppression in torchvision's place that is the processor's."""
    limits = Suppression(min_score=0.25)
    images = [make_predictions(5, seed) for seed in range(2)]
    rows = torch.from_numpy(np.stack(images))
    found = Found(rows[:, :4].transpose(1, 2).contiguous(), *rows[:, 4:].max(dim=1))
    keys = ranked_keys(found, limits.min_score).numpy()
    for image, of_image in zip(images, keys, strict=True):
        np.testing.assert_array_equal(of_image, ranked(image, limits.min_score)[0])
    for one, other in zip(
        by_image(batched_nms, found, limits), at_once(batched_nms, found, limits), strict=True
    ):
        assert len(one) >= 5
        np.testing.assert_array_equal(one, other % 8400)
    for kept, image in zip(by_image(batched_nms, found, limits), images, strict=True):
        np.testing.assert_array_equal(image[:4, kept].T, suppress(image, limits).xyxy)


def batched_nms(boxes: Any, scores: Any, labels: Any, max_iou: float) -> torch.Tensor:
    """Places that are kept, best first, of boxes that overlap only within a label."""
    kinds = int(labels.max()) + 1
    rows = np.zeros((4 + kinds, len(scores)), np.float32)
    rows[:4] = boxes.T
    rows[4 + labels.numpy(), np.arange(len(scores))] = scores
    limits = Suppression(min_score=0.0, max_iou=max_iou, max_boxes=len(scores))
    places = {tuple(box): place for place, box in enumerate(boxes.tolist())}
    return torch.tensor([places[tuple(box)] for box in suppress(rows, limits).xyxy.tolist()])
