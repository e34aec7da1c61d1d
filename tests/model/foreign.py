# SPDX-License-Identifier: Apache-2.0
"""Files as other code bases write them, made of our own random weights.

Everything here is written from what is known about those files, not through the tables of
`model/layouts.py`, so that a mistake there shows.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Tensors = dict[str, Tensor]

T_OR_S, M_OR_C, E = "T or S", "M or C", "E"


def training_tensors(converted: Tensors, kind: str) -> Tensors:
    """The training form of a converted form: our weights, and an auxiliary branch of others."""
    if kind == T_OR_S:
        shift, head, aux = (lambda i: i), 29, {22: 9, 25: 12, 28: 15}
        old_head, routes = 22, {}
    elif kind == M_OR_C:
        shift, head, old_head = (lambda i: i + 1), 38, 22
        aux = {26: 0, 27: 1, 28: 2, 29: 3, 31: 4, 32: 5, 34: 6, 35: 7, 37: 8}
        routes = {23: 240, 24: 600, 25: 1080}
    else:
        shift, head, old_head = (lambda i: i if i <= 28 else i + 7), 49, 42
        aux, routes = {29: 29, 32: 32, 35: 35}, {}
    result: Tensors = {}
    for name, tensor in converted.items():
        _, layer, path = name.split(".", 2)
        if int(layer) == old_head:
            main = re.sub(r"^cv3", "cv5", re.sub(r"^cv2", "cv4", path)).replace("dfl.", "dfl2.")
            result[f"model.{head}.{main}"] = tensor
            result[f"model.{head}.{path}"] = tensor.clone() if "dfl" in path else other(tensor)
        else:
            result[f"model.{shift(int(layer))}.{path}"] = tensor
        for copy, twin in aux.items():
            if int(layer) == twin:
                result[f"model.{copy}.{path}"] = other(tensor)
    for layer, width in routes.items():
        result[f"model.{layer}.conv.weight"] = torch.full((width, 8, 1, 1), 0.5)
        result[f"model.{layer}.conv.bias"] = torch.zeros(width)
    return result


def other(tensor: Tensor) -> Tensor:
    """A tensor of that shape with other values."""
    return tensor + 1


def mit_tensors(converted: Tensors) -> Tensors:
    """A converted form of one backbone under the names of the MIT code base."""
    return {new: tensor for name, tensor in converted.items() for new in _mit_names(name, 22)}


def mit_training_tensors(training: Tensors, kind: str) -> Tensors:
    """A training form under the names of the MIT code base."""
    head = 29 if kind == T_OR_S else 38
    result: Tensors = {}
    for name, tensor in training.items():
        _, layer, path = name.split(".", 2)
        number = int(layer)
        if number == head:
            main = re.match(r"cv4|cv5|dfl2", path) is not None
            place = 22 if main else (30 if kind == T_OR_S else 38)
            path = path.replace("cv4", "cv2").replace("cv5", "cv3").replace("dfl2", "dfl")
        elif kind == T_OR_S:
            place = number if number < 22 else number + 1
        else:
            place = number - 1 if number <= 22 else number
        is_head = number == head
        for new in _mit_names(f"model.{place}.{path}", place if is_head else None):
            result[new] = tensor
    return result


def _mit_names(name: str, head: int | None) -> list[str]:
    _, layer, path = name.split(".", 2)
    if int(layer) == head:
        if path.startswith("dfl"):
            return [f"{layer}.heads.{level}.anc2vec.anc2vec.weight" for level in range(3)]
        branch, level, rest = path.split(".", 2)
        kind = {"cv2": "anchor_conv", "cv3": "class_conv"}[branch]
        return [f"{layer}.heads.{level}.{kind}.{rest}"]
    parts = path.split(".")
    if int(layer) in A_CONVS and parts[0] == "cv1" and parts[1] in ("conv", "bn"):
        return [f"{layer}.conv.{'.'.join(parts[1:])}"]
    renamed = [re.sub(r"^cv(\d)$", r"conv\1", "bottleneck" if p == "m" else p) for p in parts]
    return [f"{layer}.{'.'.join(renamed)}"]


A_CONVS = (3, 5, 7, 16, 19)
"""Layers of a converted T, S or M that halve the resolution by one convolution."""


def detection_model(
    tensors: Tensors, family: str = "models", *, names: Any = None, sync_norms: bool = False
) -> nn.Module:
    """The module tree whose state dict these tensors are, its classes those of a code base."""
    made = _Classes(family)
    root = made.make("yolo.DetectionModel" if family == "models" else "nn.tasks.DetectionModel")
    for name, tensor in tensors.items():
        *path, leaf = name.split(".")
        node = root
        for step in path:
            if step not in node._modules:
                node.add_module(step, made.child(path, step, sync_norms=sync_norms))
            node = node._modules[step]
        if tensor.is_floating_point() and not leaf.startswith("running"):
            node.register_parameter(leaf, nn.Parameter(tensor, requires_grad=False))
        else:
            node.register_buffer(leaf, tensor)
    root.names = names if names is not None else {0: "person", 1: "bicycle", 2: "car"}
    root.yaml = {"nc": len(root.names), "anchors": 3, "backbone": [[-1, 1, "Conv", [64, 3, 2]]]}
    root.stride = torch.tensor([8.0, 16.0, 32.0])
    root.inplace = True
    return root


class _Classes:
    """Makes objects of modules that are not there, as `torch.save` finds them when they are."""

    def __init__(self, family: str) -> None:
        self.family = family

    def make(self, dotted: str) -> nn.Module:
        module, _, name = f"{self.family}.{dotted}".rpartition(".")
        parent = sys.modules[module]
        if not hasattr(parent, name):
            setattr(parent, name, type(name, (nn.Module,), {"__module__": module}))
        return getattr(parent, name)()

    def child(self, path: list[str], step: str, *, sync_norms: bool) -> nn.Module:
        bare: nn.Module
        if step == "bn":
            bare = nn.SyncBatchNorm(1) if sync_norms else nn.BatchNorm2d(1)
        elif step == "model":
            bare = nn.Sequential()
        elif step == path[-1]:
            bare = nn.Conv2d(1, 1, 1)
        else:
            return self.make("common.Conv" if self.family == "models" else "nn.modules.conv.Conv")
        bare._parameters.clear()
        bare._buffers.clear()
        return bare


@contextmanager
def code_base() -> Iterator[None]:
    """Stand-ins for the modules of other code bases, gone when the block ends."""
    names = [
        "models", "models.yolo", "models.common",
        "ultralytics", "ultralytics.nn", "ultralytics.nn.tasks", "ultralytics.nn.modules",
        "ultralytics.nn.modules.conv",
    ]  # fmt: skip
    assert not sys.modules.keys() & set(names)
    sys.modules.update({name: ModuleType(name) for name in names})
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


def save_official(path: Path, tensors: Tensors, **how: Any) -> Path:
    """A stripped file of the official code base, as it was released."""
    with code_base():
        model = detection_model(tensors, **how).half()
        torch.save({"model": model, "ema": None, "optimizer": None, "epoch": -1, "opt": None}, path)
    return path


def save_raw_official(path: Path, live: Tensors, averaged: Tensors) -> Path:
    """A file as the official training leaves it: live and averaged weights, optimizer, options."""
    with code_base():
        content = {
            "epoch": 3,
            "best_fitness": np.array([0.25]),
            "model": detection_model(live, sync_norms=True).half(),
            "ema": detection_model(averaged).half(),
            "updates": 1200,
            "optimizer": {"state": {0: {"momentum_buffer": torch.ones(4)}}, "param_groups": []},
            "opt": {"save_dir": Path("runs/train"), "hyp": {"lr0": 0.01}, "freeze": {0}},
            "git": None,
            "date": "2024-02-18T12:00:00",
        }
        torch.save(content, path)
    return path


def save_ultralytics(path: Path, tensors: Tensors, *, raw: bool = False, **how: Any) -> Path:
    """A file of ultralytics: of a training in progress, the weights are under `ema` alone."""
    with code_base():
        model = detection_model(tensors, "ultralytics", **how).half()
        content = {
            "date": "2024-05-01T12:00:00",
            "version": "8.3.200",
            "license": "AGPL-3.0 License (https://ultralytics.com/license)",
            "epoch": -1,
            "model": None if raw else model,
            "ema": model if raw else None,
            "train_args": {"model": "yolov9t.yaml", "imgsz": 640},
            "train_results": {"epoch": [1, 2], "metrics/mAP50": [0.1, 0.2]},
        }
        torch.save(content, path)
    return path


def save_lightning(path: Path, live: Tensors, averaged: Tensors | None) -> Path:
    """A checkpoint of Lightning around a network of the MIT code base."""
    state = {f"model.model.{name}": tensor for name, tensor in live.items()}
    if averaged is not None:
        state |= {f"ema.model.{name}": tensor for name, tensor in averaged.items()}
    torch.save({"epoch": 1, "global_step": 9, "state_dict": state, "loops": {}}, path)
    return path


def dense(converted: Tensors) -> Tensors:
    """The same with a dense box branch: each group's weights a block on the diagonal."""
    result = dict(converted)
    for name, tensor in converted.items():
        if re.search(r"\.cv2\.\d\.(1\.conv|2)\.weight$", name) and len(tensor) > tensor.shape[1]:
            rows = len(tensor) // 4
            whole = torch.zeros(len(tensor), 4 * tensor.shape[1], *tensor.shape[2:])
            for group in range(4):
                columns = slice(group * tensor.shape[1], (group + 1) * tensor.shape[1])
                block = slice(group * rows, (group + 1) * rows)
                whole[block, columns] = tensor[block]
            result[name] = whole
    return result
