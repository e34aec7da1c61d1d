# SPDX-License-Identifier: Apache-2.0
"""Candidates are those of `suppress`, in its order, whatever the network computes in."""

import numpy as np
import pytest
import torch

from model.config import Suppression
from model.cuda.candidates import NONE, Candidates, rank
from model.head import LevelLogits, Logits, decode, in_float32
from model.network import Detector
from model.parity import make_pictures
from model.reparam import fuse
from model.suppression import suppress
from tests.model.builders import make_calm_detector
from tests.model.cuda.ranked import read_ranked

NUM_CLASSES = 3


@pytest.fixture(scope="module")
def detector() -> Detector:
    return fuse(make_calm_detector())


@pytest.fixture(scope="module")
def canvases() -> torch.Tensor:
    pictures = torch.from_numpy(make_pictures((2, 64, 96))).permute(0, 3, 1, 2) / 255
    return pictures.to(memory_format=torch.channels_last)


def make_logits(seed: int = 0) -> Logits:
    """Scores of few different values, so that many are equal, on a canvas of 64 x 96."""
    random = np.random.default_rng(seed)

    def level(step: int) -> LevelLogits:
        height, width = 64 // step, 96 // step
        box = random.normal(size=(1, 64, height, width)).astype(np.float32)
        score = random.integers(-2, 3, (1, NUM_CLASSES, height, width)).astype(np.float32)
        return LevelLogits(torch.from_numpy(box), torch.from_numpy(score))

    return level(8), level(16), level(32)


def rank_all(logits: Logits, min_score: float = -1.0) -> tuple[torch.Tensor, torch.Tensor]:
    wanted = torch.ones(NUM_CLASSES, dtype=torch.bool)
    return rank(logits, torch.tensor(min_score), wanted)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("classes", [None, (0, 2), ()])
def test_keys_rank_as_the_processor_ranks(seed: int, classes: tuple[int, ...] | None) -> None:
    logits = make_logits(seed)
    wanted = torch.tensor([classes is None or label in classes for label in range(NUM_CLASSES)])
    boxes, keys = rank(logits, torch.tensor(0.3), wanted)
    # with these limits suppression drops nothing: what is left is its order
    settings = Suppression(min_score=0.3, max_iou=1.0, max_boxes=10**6)
    expected = suppress(decode(logits)[0].numpy(), settings, classes=classes)
    found = read_ranked(boxes[0], keys[0], NUM_CLASSES)
    np.testing.assert_array_equal(found.xyxy, expected.xyxy)
    np.testing.assert_array_equal(found.score, expected.score)
    np.testing.assert_array_equal(found.class_id, expected.class_id)
    assert (len(found) > 0) == (classes != ())


def test_candidates_have_keys_of_their_own() -> None:
    _, keys = rank_all(make_logits())
    assert len(keys.unique()) == keys.numel()
    assert keys.min() > 0
    assert keys.max() < NONE


def test_scores_at_the_limit_are_left_out() -> None:
    logits = make_logits()
    logits[0].score[0, :, 0, :2] = torch.tensor([[0.0, 0.1], [-1, -1], [-1, -1]])  # 0.5 and more
    _, keys = rank_all(logits, min_score=0.5)
    assert (keys[0, 0] == NONE, keys[0, 1] == NONE) == (True, False)


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_what_is_not_a_number_is_no_candidate(broken: float) -> None:
    logits = make_logits()
    logits[0].box[0, 5, 0, 0] = broken
    logits[1].score[0, 1, 0, 0] = torch.nan
    _, keys = rank_all(logits)
    assert torch.nonzero(keys[0] == NONE).flatten().tolist() == [0, 8 * 12]


def test_boxes_and_scores_are_the_detectors(detector: Detector, canvases: torch.Tensor) -> None:
    with torch.inference_mode():
        predictions = detector(canvases)
        boxes, keys = Candidates(detector)(
            canvases, torch.tensor(-1.0), torch.ones(NUM_CLASSES, dtype=torch.bool)
        )
    assert boxes.is_contiguous()
    assert torch.equal(boxes, predictions[:, :4].transpose(1, 2))
    for image in range(len(canvases)):
        found = read_ranked(boxes[image], keys[image], NUM_CLASSES)
        best = predictions[image, 4:].max(dim=0).values.sort(descending=True).values
        np.testing.assert_allclose(found.score, best.numpy(), rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_logits_in_half_precision_are_decoded_in_float32(dtype: torch.dtype) -> None:
    p3, p4, p5 = (LevelLogits(*(part.to(dtype) for part in level)) for level in make_logits())
    halves = (p3, p4, p5)
    boxes, keys = rank_all(halves)
    expected_boxes, expected_keys = rank_all(in_float32(halves))
    assert boxes.dtype == torch.float32
    assert torch.equal(boxes, expected_boxes)
    assert torch.equal(keys, expected_keys)


@pytest.mark.parametrize(
    ("dtype", "box_px", "score"), [(torch.float16, 0.3, 0.006), (torch.bfloat16, 5.0, 0.08)]
)
def test_half_precision_is_near(
    detector: Detector, canvases: torch.Tensor, dtype: torch.dtype, box_px: float, score: float
) -> None:
    with torch.inference_mode():
        expected = detector(canvases)
        actual = decode(in_float32(fuse(detector).to(dtype).logits(canvases.to(dtype))))
    apart = (actual - expected).abs()
    assert apart[:, :4].max() < box_px
    assert apart[:, 4:].max() < score
