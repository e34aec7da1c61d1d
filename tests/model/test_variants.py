# SPDX-License-Identifier: Apache-2.0
"""A size, a block or a depth that is not among the released ones is a row of the same table."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch

from model.blocks import BLOCKS, CspBlock, ElanBlock
from model.importing import import_weights, official_names
from model.network import Detector
from model.reparam import fuse
from model.scales import SCALES, BlockKind, Elan, ElanDepth, Scale, ScaleName, even
from model.weights import load_detector
from tests.model.builders import published_tensors, save_published
from tests.model.test_reparam import randomise

SIXTH = Scale(
    stem=(8, 16),
    backbone=(Elan(24, 16), Elan(40, 32), Elan(48, 32), Elan(56, 48)),
    neck=even(48, 32, 48, 64),
    context=56,
    repeats=2,
    down="AConv",
    class_width=24,
    passes=2,
)


def test_the_table_has_every_kind_of_block() -> None:
    assert set(BLOCKS) == set(get_args(BlockKind))


@pytest.mark.parametrize("depth", get_args(ElanDepth))
@pytest.mark.parametrize("kind", BLOCKS)
def test_a_detector_of_any_block_and_depth_runs_and_learns_as_a_whole(
    kind: BlockKind, depth: ElanDepth
) -> None:
    scale = replace(SCALES["T"], block=kind, depth=depth, repeats=1)
    detector = Detector(scale, 2).train()
    logits = detector.logits(torch.rand(2, 3, 64, 64))
    sum(level.box.sum() + level.score.sum() for level in logits).backward()
    assert all(parameter.grad is not None for parameter in detector.parameters())


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_fused_block_of_any_kind_gives_the_same(kind: BlockKind) -> None:
    block = randomise(ElanBlock(6, Elan(12, 16), repeats=2, kind=kind)).double()
    x = torch.randn(1, 6, 9, 7, dtype=torch.float64)
    fused = fuse(block)
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in fused.modules())
    with torch.inference_mode():
        torch.testing.assert_close(fused(x), block(x))


def test_a_block_refines_its_last_part_as_often_as_it_is_deep() -> None:
    block = ElanBlock(4, Elan(8, 8), repeats=1, depth=3).eval()
    x = torch.rand(1, 4, 5, 5)
    with torch.inference_mode():
        left, first_input = block.split(x).chunk(2, dim=1)
        first = block.first(first_input)
        second = block.second(first)
        parts = torch.cat((left, first_input, first, second, block.third(second)), dim=1)
        assert torch.equal(block(x), block.merge(parts))


@pytest.mark.parametrize("depth", get_args(ElanDepth))
def test_bare_convolutions_at_stride_4_are_two_whatever_the_depth(depth: ElanDepth) -> None:
    backbone = Detector(replace(SCALES["T"], depth=depth), 2).backbone
    assert not any(isinstance(part, CspBlock) for part in backbone.block_p2.modules())
    assert len(backbone.block_p2.order) == 2
    assert len(backbone.block_p3.order) == depth


def test_a_sixth_size_is_one_row_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    sixth: ScaleName = "X"  # type: ignore[assignment]
    monkeypatch.setitem(SCALES, sixth, SIXTH)
    detector = randomise(Detector(SCALES[sixth], 3))
    images = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(fuse(detector)(images), detector(images), atol=1e-3, rtol=1e-4)
    names = official_names(detector)
    assert len(set(names.values())) == len(detector.state_dict())


def test_a_row_is_all_that_files_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCALES, "T", SIXTH)
    detector = randomise(Detector(SIXTH, 3))
    source = save_published(tmp_path / "published", published_tensors(detector))
    card = import_weights(source, tmp_path / "ours")
    loaded, _ = load_detector(tmp_path / "ours")
    assert (card.scale, card.class_width) == ("T", SIXTH.class_width)
    images = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        assert torch.equal(loaded(images), fuse(detector)(images))
