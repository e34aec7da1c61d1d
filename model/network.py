# SPDX-License-Identifier: Apache-2.0
"""Start here: the detector, wired from a row of `scales.SCALES`.

image -> stem -> P2 -> P3 -> P4 -> P5        backbone, strides 4, 8, 16, 32
                       |     |     |
                       |     |  context      neck, down the pyramid: coarse meets fine
                       |  top P4 <-+ |
                    top P3 <-+ |     |
                       |       |     |
                       +-> bottom P4 |       and up again: fine meets coarse
                       |       +-> bottom P5
                       P3      P4    P5      head: boxes and scores on each

In size E a second backbone sees the image again, and at each stride what the first one found
there and at all coarser strides; the neck reads the second:

image -+-> backbone -> routes -+
       +-----------------------+-> linked backbone -> neck

Paper: YOLOv9, arXiv 2402.13616. Axes: B batch, C classes, H and W height and width of the image
in pixels, A anchor points of all levels.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor, nn

from model.blocks import (
    DOWNSAMPLINGS,
    AConv,
    ADown,
    ElanBlock,
    PoolPyramid,
    Routes,
    join_routes,
)
from model.head import BoxGroups, Head, Logits, decode
from model.reparam import ConvUnit
from model.scales import Elan, Scale

Levels = tuple[Tensor, Tensor, Tensor]
"""Maps at strides 8, 16, 32."""
Stages = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Maps at strides 2, 4, 8, 16, 32."""
Routed = Sequence[Sequence[Tensor]]
"""For each stage of a backbone, the maps that join it."""
NOTHING_ROUTED: Final[Routed] = ((), (), (), (), ())


class Backbone(nn.Module):
    """From the image to maps at strides 2 to 32, joined on the way by maps routed here."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        p2, p3, p4, p5 = scale.backbone
        self.stem_p1 = ConvUnit(3, scale.stem[0], 3, stride=2)
        self.stem_p2 = ConvUnit(scale.stem[0], scale.stem[1], 3, stride=2)
        first = replace(scale, repeats=0, depth=2) if scale.first == "plain" else scale
        self.block_p2 = _elan(first, scale.stem[1], p2)
        self.down_p3, width = _down(scale, p2.out, p3.out)
        self.block_p3 = _elan(scale, width, p3)
        self.down_p4, width = _down(scale, p3.out, p4.out)
        self.block_p4 = _elan(scale, width, p4)
        self.down_p5, width = _down(scale, p4.out, p5.out)
        self.block_p5 = _elan(scale, width, p5)

    def forward(self, images: Float[Tensor, "B 3 H W"], routed: Routed = NOTHING_ROUTED) -> Stages:
        to_p1, to_p2, to_p3, to_p4, to_p5 = routed
        p1 = join_routes(self.stem_p1(images), to_p1)
        p2 = self.block_p2(join_routes(self.stem_p2(p1), to_p2))
        p3 = self.block_p3(join_routes(self.down_p3(p2), to_p3))
        p4 = self.block_p4(join_routes(self.down_p4(p3), to_p4))
        p5 = self.block_p5(join_routes(self.down_p5(p4), to_p5))
        return p1, p2, p3, p4, p5


class LinkedBackbone(nn.Module):
    """A backbone joined, at each stride, by what another found there and at coarser strides.

    The links are those of dense higher-level composition (CBNetV2, arXiv 2107.00420). A detector
    links all five stages; an auxiliary branch of training may link the coarsest only.
    """

    def __init__(self, scale: Scale, found: Sequence[int]) -> None:
        """Wire a backbone and the routes to it.

        Args:
            scale: A row of `SCALES`.
            found: Channels of the maps that are linked, at the coarsest strides, finest first.
        """
        super().__init__()
        wanted = _joint_widths(scale)[-len(found) :]
        self.routes = nn.ModuleList(
            Routes(channels, wanted[: place + 1]) for place, channels in enumerate(found)
        )
        self.backbone = Backbone(scale)

    def forward(self, images: Float[Tensor, "B 3 H W"], found: Sequence[Tensor]) -> Stages:
        """Return the five maps of this backbone; `found` are the maps that it links."""
        routes = [route(x) for route, x in zip(self.routes, found, strict=True)]
        linked = [[maps[place] for maps in routes[place:]] for place in range(len(routes))]
        return self.backbone(images, (*NOTHING_ROUTED[len(linked) :], *linked))


class TopDown(nn.Module):
    """The neck's way down: each level sees the coarser ones."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        _, p3, p4, p5 = (block.out for block in scale.backbone)
        top_p4, top_p3, _, _ = scale.neck
        self.context = PoolPyramid(p5, scale.context)
        self.top_p4 = _elan(scale, scale.context + p4, top_p4)
        self.top_p3 = _elan(scale, top_p4.out + p3, top_p3)

    def forward(self, levels: Levels) -> Levels:
        p3, p4, p5 = levels
        context = self.context(p5)
        top_p4 = self.top_p4(torch.cat((_doubled(context), p4), dim=1))
        top_p3 = self.top_p3(torch.cat((_doubled(top_p4), p3), dim=1))
        return top_p3, top_p4, context


class Neck(TopDown):
    """Let the levels see each other, top down and then bottom up."""

    def __init__(self, scale: Scale) -> None:
        super().__init__(scale)
        top_p4, top_p3, bottom_p4, bottom_p5 = scale.neck
        self.down_p4, width = _down(scale, top_p3.out, _half(bottom_p4.out))
        self.bottom_p4 = _elan(scale, width + top_p4.out, bottom_p4)
        self.down_p5, width = _down(scale, bottom_p4.out, _half(bottom_p5.out))
        self.bottom_p5 = _elan(scale, width + scale.context, bottom_p5)

    def forward(self, levels: Levels) -> Levels:
        top_p3, top_p4, context = super().forward(levels)
        bottom_p4 = self.bottom_p4(torch.cat((self.down_p4(top_p3), top_p4), dim=1))
        bottom_p5 = self.bottom_p5(torch.cat((self.down_p5(bottom_p4), context), dim=1))
        return top_p3, bottom_p4, bottom_p5


class Detector(nn.Module):
    """Backbone, neck and head of one size, for a number of classes."""

    def __init__(
        self,
        scale: Scale,
        num_classes: int,
        *,
        class_width: int | None = None,
        box_groups: BoxGroups = 4,
    ) -> None:
        """Wire the detector with random weights.

        Args:
            scale: A row of `SCALES`.
            num_classes: Kinds of objects to tell apart.
            class_width: Channels of the head's class branch; the scale's own if not given.
            box_groups: Groups of the head's box branch.
        """
        super().__init__()
        _, p3, p4, p5 = scale.neck
        self.scale = scale
        self.num_classes = num_classes
        self.backbone = Backbone(scale)
        stages = (scale.stem[0], *(block.out for block in scale.backbone))
        self.linked = nn.ModuleList(LinkedBackbone(scale, stages) for _ in range(scale.passes - 1))
        self.neck = Neck(scale)
        self.head = Head(
            (p3.out, p4.out, p5.out),
            num_classes,
            class_width=class_width or scale.class_width,
            box_groups=box_groups,
        )

    def pyramid(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Levels, Levels]:
        """Return the maps of P3, P4 and P5 that leave the backbone, and those that leave the neck.

        An auxiliary branch of training reads the first; the head reads the second. Where two
        backbones are linked, the first maps are those of the first backbone, though the neck
        reads the second: the branch teaches the part that is farthest from the head.
        """
        stages = first = self.backbone(images)
        for backbone in self.linked:
            stages = backbone(images, stages)
        return first[2:], self.neck(stages[2:])

    def logits(self, images: Float[Tensor, "B 3 H W"]) -> Logits:
        """Return what the head says about each level, as a criterion needs it."""
        _, features = self.pyramid(images)
        return self.head(features)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B rows A"]:
        """Images in 0 to 1 to boxes (xyxy, in pixels) and then one score a class."""
        return decode(self.logits(images))


def _elan(scale: Scale, inputs: int, width: Elan) -> ElanBlock:
    return ElanBlock(inputs, width, scale.repeats, kind=scale.block, depth=scale.depth)


def _down(scale: Scale, inputs: int, wanted: int) -> tuple[AConv | ADown, int]:
    """Return the downsampling of this size and its width: ADown keeps the channels it is given."""
    outputs = inputs if scale.down == "ADown" else wanted
    return DOWNSAMPLINGS[scale.down](inputs, outputs), outputs


def _joint_widths(scale: Scale) -> tuple[int, ...]:
    """Channels of each stage of a backbone where routed maps join it, before its block."""
    p2, p3, p4, p5 = (block.out for block in scale.backbone)
    downs = (p2, p3, p4) if scale.down == "ADown" else (p3, p4, p5)
    return (*scale.stem, *downs)


def _half(channels: int) -> int:
    """Half as many channels, in whole eights."""
    return -(-channels // 16) * 8


def _doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")
