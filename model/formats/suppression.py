# SPDX-License-Identifier: Apache-2.0
"""Suppression inside an ONNX graph, of standard operators, so that any runtime runs it.

It is `model.suppression` in other words: an anchor gives one box, of its best class; boxes of one
class drop each other; equal scores go in the order of their anchors, the first class first. The
one freedom left is the last bit of an overlap, which a runtime may divide where ours multiplies.

Axes: B batch, C classes, A anchor points, N boxes that survive, K places in the output.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from model.config import Suppression
from model.engines.onnx import OUTPUT

OUTPUTS: Final = ("boxes", "scores", "class_ids", "num_dets")
"""B K 4, B K, B K and B; best first, and behind the last box zeros and class -1."""


def add_suppression(model: onnx.ModelProto, settings: Suppression, *, num_classes: int) -> None:
    """Put a suppression behind the predictions of a graph; its outputs take their place."""
    steps = _Steps(model.graph)
    boxes = steps("Transpose", steps.part(OUTPUT, 0, 4), perm=[0, 2, 1])  # B A 4
    scores = steps.part(OUTPUT, 4, 4 + num_classes)  # B C A
    best = steps("ReduceMax", scores, steps.whole([1]), keepdims=0)  # B A
    class_id = steps("ArgMax", scores, axis=1, keepdims=0)  # B A
    candidates = steps("Unsqueeze", best, steps.whole([1]))  # B 1 A
    if settings.class_aware:
        places = steps.constant(np.arange(num_classes).reshape(1, -1, 1))
        own = steps("Equal", steps("Unsqueeze", class_id, steps.whole([1])), places)
        candidates = steps("Where", own, candidates, steps.real([0.0]))  # B C A
    selected = steps(
        "NonMaxSuppression",
        boxes,
        candidates,
        steps.whole([settings.max_boxes]),
        steps.real([settings.max_iou]),
        steps.real([settings.min_score]),
    )
    where = steps("Gather", selected, steps.whole([0, 2]), axis=1)  # N 2: image and anchor
    size = steps("Shape", best)
    zeros = steps(
        "ConstantOfShape", size, value=helper.make_tensor("", TensorProto.FLOAT, [1], [0])
    )
    kept = steps("ScatterND", zeros, where, steps("GatherND", best, where))  # B A
    most = steps("Min", steps.part(size, 1, 2, axis=0), steps.whole([settings.max_boxes]))
    score, place = steps.two("TopK", kept, most, axis=1)  # B K
    _write(steps, boxes, class_id, score, place)
    _name_outputs(model.graph)


def _write(steps: "_Steps", boxes: str, class_id: str, score: str, place: str) -> None:
    """Gather what survives, best first, and blank what lies behind the last."""
    there = steps("Greater", score, steps.real([0.0]))  # B K
    found = steps("GatherND", boxes, steps("Unsqueeze", place, steps.whole([-1])), batch_dims=1)
    blank = steps("Unsqueeze", there, steps.whole([-1]))
    steps("Where", blank, found, steps.real([0.0]), named=OUTPUTS[0])
    steps("Identity", score, named=OUTPUTS[1])
    label = steps("GatherElements", class_id, place, axis=1)
    steps("Where", there, label, steps.whole([-1]), named=OUTPUTS[2])
    count = steps("Cast", there, to=TensorProto.INT64)
    steps("ReduceSum", count, steps.whole([1]), keepdims=0, named=OUTPUTS[3])


def _name_outputs(graph: onnx.GraphProto) -> None:
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT64)
    shapes: tuple[list[str | int], ...] = (
        ["batch", "num_boxes", 4],
        ["batch", "num_boxes"],
        ["batch", "num_boxes"],
        ["batch"],
    )
    del graph.output[:]
    for name, kind, shape in zip(OUTPUTS, kinds, shapes, strict=True):
        graph.output.append(helper.make_tensor_value_info(name, kind, shape))


class _Steps:
    """Adds nodes to a graph; each returns the name of what it makes."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._count = 0

    def __call__(self, kind: str, *inputs: str, named: str | None = None, **facts: object) -> str:
        (output,) = self._node(kind, inputs, [named or self._name()], facts)
        return output

    def two(self, kind: str, *inputs: str, **facts: object) -> tuple[str, str]:
        first, second = self._node(kind, inputs, [self._name(), self._name()], facts)
        return first, second

    def part(self, tensor: str, start: int, end: int, axis: int = 1) -> str:
        return self("Slice", tensor, self.whole([start]), self.whole([end]), self.whole([axis]))

    def whole(self, values: Sequence[int]) -> str:
        return self.constant(np.array(values, np.int64))

    def real(self, values: Sequence[float]) -> str:
        return self.constant(np.array(values, np.float32))

    def constant(self, values: np.ndarray) -> str:
        name = self._name()
        self._graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def _name(self) -> str:
        self._count += 1
        return f"suppression/{self._count}"

    def _node(
        self, kind: str, inputs: Sequence[str], outputs: list[str], facts: dict[str, object]
    ) -> list[str]:
        node = helper.make_node(kind, inputs, outputs, name=f"{outputs[0]}/{kind}", **facts)
        self._graph.node.append(node)
        return outputs
