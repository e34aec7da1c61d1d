# SPDX-License-Identifier: Apache-2.0
"""Shapes and costs of the blocks."""

import pytest
import torch

from model.blocks import AConv, ADown, CspBlock, ElanBlock, PoolPyramid, Routes, join_routes
from model.scales import SCALES, Elan, ScaleName


def num_parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("scale", SCALES)
def test_a_block_keeps_resolution_and_sets_channels(scale: ScaleName) -> None:
    for width in SCALES[scale].backbone:
        block = ElanBlock(24, width, SCALES[scale].repeats).eval()
        assert block(torch.zeros(2, 24, 8, 10)).shape == (2, width.out, 8, 10)


@pytest.mark.parametrize("down", [AConv, ADown])
@pytest.mark.parametrize("height", [8, 10])
def test_a_downsampling_halves_the_resolution(down: type[AConv | ADown], height: int) -> None:
    block = down(8, 12).eval()
    assert block(torch.zeros(1, 8, height, 16)).shape == (1, 12, height // 2, 8)


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        pytest.param(ElanBlock(32, Elan(32, 32), 0), 7_872, id="T at stride 4"),
        pytest.param(ElanBlock(64, Elan(64, 64), 3), 65_216, id="T at stride 8"),
        pytest.param(ElanBlock(224, Elan(96, 96), 3), 158_112, id="T in the neck"),
        pytest.param(ElanBlock(360, Elan(360, 360), 1), 1_414_080, id="M at stride 16"),
        pytest.param(ElanBlock(256, Elan(512, 256), 1), 847_616, id="C at stride 8"),
        pytest.param(AConv(32, 64), 18_560, id="AConv"),
        pytest.param(ADown(256, 256), 164_352, id="ADown"),
        pytest.param(PoolPyramid(128, 128), 41_344, id="pooling pyramid"),
        pytest.param(Routes(512, (64, 128, 256)), 229_824, id="E's routes at stride 8"),
    ],
)
def test_a_block_has_the_published_parameters(block: torch.nn.Module, expected: int) -> None:
    assert num_parameters(block) == expected


def test_a_pooling_pyramid_sees_13_cells() -> None:
    torch.manual_seed(0)
    pyramid = PoolPyramid(2, 2).eval()
    x = torch.zeros(1, 2, 1, 31)
    x[..., 15] = 100.0
    with torch.inference_mode():
        response = (pyramid(x) - pyramid(torch.zeros_like(x))).abs().sum(dim=(0, 1, 2))
    reached = torch.nonzero(response > 0).flatten()
    assert reached.min() >= 15 - 6
    assert reached.max() <= 15 + 6


def test_a_csp_block_without_bottlenecks_is_two_views_merged() -> None:
    block = CspBlock(6, 8, repeats=0).eval()
    x = torch.rand(1, 6, 4, 4)
    with torch.inference_mode():
        views = torch.cat((block.left(x), block.right(x)), dim=1)
        torch.testing.assert_close(block(x), block.merge(views))


def test_routes_are_parts_of_one_convolution() -> None:
    routes = Routes(6, (2, 4))
    x = torch.rand(1, 6, 3, 5)
    with torch.inference_mode():
        first, second = routes(x)
        torch.testing.assert_close(torch.cat((first, second), dim=1), routes.conv(x))
    assert (first.shape, second.shape) == ((1, 2, 3, 5), (1, 4, 3, 5))


def test_a_coarse_route_adds_each_cell_to_the_square_above_it() -> None:
    x = torch.zeros(1, 1, 4, 4)
    coarse = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    fine = torch.full_like(x, 10.0)
    expected = fine + coarse.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert torch.equal(join_routes(x, (coarse, fine)), expected)
    assert not x.any(), "the map that was joined is left as it was"


def test_a_map_that_nothing_joins_stays_itself() -> None:
    x = torch.rand(1, 2, 3, 3)
    assert join_routes(x, ()) is x
