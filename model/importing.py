# SPDX-License-Identifier: Apache-2.0
"""Published weights, brought under our names through one table of names.

`model/published.py` reads files of every layout under the names of the official converted form,
`model.{layer}.{path}`. Sizes and options are read from the shapes of the tensors.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from torch import nn

from model.blocks import AConv, ADown, Bottleneck, CspBlock, ElanBlock, PoolPyramid
from model.card import MAX_CLASS_WIDTH, Card
from model.errors import WeightsError
from model.head import BINS, LEVELS, Branch, Head
from model.layouts import foreign, name_first
from model.network import Detector
from model.outputs import refuse_existing
from model.published import Published, read_published
from model.reparam import ConvNorm, RepConv
from model.scales import SCALES, Scale, ScaleName
from model.weights import blank, fill, save_weights, weights_digest

if TYPE_CHECKING:
    import torch

LAYERS: Final = {
    "backbone.stem_p1": 0,
    "backbone.stem_p2": 1,
    "backbone.block_p2": 2,
    "backbone.down_p3": 3,
    "backbone.block_p3": 4,
    "backbone.down_p4": 5,
    "backbone.block_p4": 6,
    "backbone.down_p5": 7,
    "backbone.block_p5": 8,
    "neck.context": 9,
    "neck.top_p4": 12,
    "neck.top_p3": 15,
    "neck.down_p4": 16,
    "neck.bottom_p4": 18,
    "neck.down_p5": 19,
    "neck.bottom_p5": 21,
    "head": 22,
}
"""Our modules, and the number of the same layer in a published file of one backbone."""

LINKED_LAYERS: Final = {
    "backbone.stem_p1": 1,
    "backbone.stem_p2": 2,
    "backbone.block_p2": 3,
    "backbone.down_p3": 4,
    "backbone.block_p3": 5,
    "backbone.down_p4": 6,
    "backbone.block_p4": 7,
    "backbone.down_p5": 8,
    "backbone.block_p5": 9,
    "linked.0.routes.0": 10,
    "linked.0.routes.1": 11,
    "linked.0.routes.2": 12,
    "linked.0.routes.3": 13,
    "linked.0.routes.4": 14,
    "linked.0.backbone.stem_p1": 15,
    "linked.0.backbone.stem_p2": 17,
    "linked.0.backbone.block_p2": 19,
    "linked.0.backbone.down_p3": 20,
    "linked.0.backbone.block_p3": 22,
    "linked.0.backbone.down_p4": 23,
    "linked.0.backbone.block_p4": 25,
    "linked.0.backbone.down_p5": 26,
    "linked.0.backbone.block_p5": 28,
    "neck.context": 29,
    "neck.top_p4": 32,
    "neck.top_p3": 35,
    "neck.down_p4": 36,
    "neck.bottom_p4": 38,
    "neck.down_p5": 39,
    "neck.bottom_p5": 41,
    "head": 42,
}
"""The same for a file of two linked backbones."""

CHILDREN: Final[dict[type[nn.Module], dict[str, str]]] = {
    ConvNorm: {"conv": "conv", "norm": "bn"},
    RepConv: {"square": "conv1", "point": "conv2"},
    Bottleneck: {"first": "cv1", "second": "cv2"},
    CspBlock: {"left": "cv1", "right": "cv2", "merge": "cv3", "chain": "m"},
    nn.Sequential: {"csp": "0", "mix": "1"},
    ElanBlock: {"split": "cv1", "first": "cv2", "second": "cv3", "merge": "cv4"},
    AConv: {"conv": "cv1"},
    ADown: {"strided": "cv1", "pooled": "cv2"},
    PoolPyramid: {"reduce": "cv1", "merge": "cv5"},
    Head: {"box": "cv2", "score": "cv3"},
    nn.ModuleDict: {level: str(place) for place, level in enumerate(LEVELS)},
    Branch: {"first": "0", "second": "1", "out": "2"},
}
"""Our name of each child, and the published one, by the kind of the parent."""


def layers_of(scale: Scale) -> dict[str, int]:
    """Return our modules, and the number of the same layer in a published file of this size."""
    return LAYERS if scale.passes == 1 else LINKED_LAYERS


def bins_name(scale: Scale) -> str:
    """Return the name of a published constant, the distances 0 to 15. We store none."""
    return f"model.{layers_of(scale)['head']}.dfl.conv.weight"


def import_weights(
    source: Path, output: Path, *, licence: str = "", overwrite: bool = False
) -> Card:
    """Convert a published file to ours, and return the card of the result.

    Args:
        source: A checkpoint of any published layout; of a training form, the main branch is taken.
        output: The file to write.
        licence: The licence of a file that does not state one itself.
        overwrite: Whether an existing `output` is replaced.
    """
    refuse_existing(output, overwrite=overwrite)
    published = read_published(source)
    tensors = published.branches().main
    card = describe(published, tensors, licence)
    detector = blank(card)
    take_bins(source, tensors, bins_name(SCALES[card.scale]))
    fused = fill(detector, renamed(source, tensors, official_names(detector)), source)
    if not all(tensor.isfinite().all() for tensor in fused.state_dict().values()):
        raise WeightsError(f"{source}: its numbers are too large for float32 once it is fused")
    card = card.model_copy(update={"form": "fused"})
    save_weights(output, fused, card)
    return card


def official_names(detector: Detector) -> dict[str, str]:
    """Return the published name of each of our tensors."""
    layers = layers_of(detector.scale)
    return {name: official_name(detector, name, layers) for name in detector.state_dict()}


def official_name(whole: nn.Module, name: str, layers: Mapping[str, int]) -> str:
    """Return the published name of a tensor in a module whose parts are these layers."""
    layer = next(layer for layer in layers if name.startswith(f"{layer}."))
    module = whole.get_submodule(layer)
    parts = ["model", str(layers[layer])]
    for part in name.removeprefix(f"{layer}.").split("."):
        parts.append(_child_name(module, part))
        module = getattr(module, part)
    return ".".join(parts)


def _child_name(parent: Any, child: str) -> str:
    """Translate one step; tensors and numbered children are named alike on both sides."""
    for kind, children in CHILDREN.items():
        if isinstance(parent, kind) and child in children:
            return children[child]
    return child


def renamed(
    source: Path, tensors: dict[str, "torch.Tensor"], names: Mapping[str, str]
) -> dict[str, "torch.Tensor"]:
    """Bring every tensor under our name, or say which ones have no counterpart."""
    missing = [official for official in names.values() if official not in tensors]
    unused = sorted(tensors.keys() - names.values())
    if missing or unused:
        sides = (("lacks", missing), ("has no place for", unused))
        faults = [f"{verb} {name_first(names)}" for verb, names in sides if names]
        raise foreign(source, "; ".join(faults))
    return {ours: tensors[official] for ours, official in names.items()}


def _licence(published: Published, stated: str) -> str:
    """Return the licence a file states, or else the one its user does."""
    if stated and published.licence:
        raise WeightsError(
            f"{published.path}: states its licence itself, {published.licence}; "
            "--licence is for files that state none"
        )
    return published.licence or stated or "unknown"


def describe(published: Published, tensors: dict[str, "torch.Tensor"], licence: str) -> Card:
    """Read size and options from the shapes of what is deployed.

    Args:
        published: The file.
        tensors: Its main branch, under the names of the converted form.
        licence: What its user says, if it states none itself.
    """
    source, licence = published.path, _licence(published, licence)
    scale = _find_scale(source, tensors)
    head = layers_of(SCALES[scale])["head"]
    score = _shape(source, tensors, f"model.{head}.cv3.0.2.weight")
    box = _shape(source, tensors, f"model.{head}.cv2.0.1.conv.weight")
    if box[0] not in (box[1], 4 * box[1]) or not 0 < score[1] <= MAX_CLASS_WIDTH or not score[0]:
        raise foreign(source, f"a head of shapes {score} and {box} is not one of ours")
    return Card(
        scale=scale,
        classes=published.class_names(score[0]),
        class_width=score[1],
        box_groups=1 if box[0] == box[1] else 4,
        form="unfused" if any(".bn." in name for name in tensors) else "fused",
        source=source.name,
        source_sha256=weights_digest(source),
        source_layout=str(published.layout),
        licence=licence,
    )


def _find_scale(source: Path, tensors: dict[str, "torch.Tensor"]) -> ScaleName:
    """Recognise the size by the widths of its backbone."""
    for name, scale in SCALES.items():
        if _found_widths(tensors, scale) == _backbone_widths(scale):
            return name
    found = sorted({_found_widths(tensors, scale) for scale in SCALES.values()} - {()})
    if not found:
        raise foreign(source, "it has no backbone of ours")
    known = ", ".join(f"{name} {_backbone_widths(scale)}" for name, scale in SCALES.items())
    raise WeightsError(f"{source}: backbone widths {found[0]} are of no known size: {known}")


def _found_widths(tensors: dict[str, "torch.Tensor"], scale: Scale) -> tuple[int, ...]:
    """Read the widths of the backbone where a file of this size has them, or nothing."""
    layers = layers_of(scale)
    blocks = [layers[f"backbone.block_{level}"] for level in ("p2", "p3", "p4", "p5")]
    names = [f"model.{block}.cv4.conv.weight" for block in blocks]
    return tuple(len(tensors[name]) for name in names if name in tensors and tensors[name].ndim)


def _backbone_widths(scale: Scale) -> tuple[int, ...]:
    return tuple(block.out for block in scale.backbone)


def _shape(source: Path, tensors: dict[str, "torch.Tensor"], name: str) -> tuple[int, ...]:
    if name not in tensors or tensors[name].ndim != 4:
        raise foreign(source, f"it lacks {name}")
    return tuple(tensors[name].shape)


def take_bins(source: Path, tensors: dict[str, "torch.Tensor"], name: str) -> None:
    """Check and drop the distances of the box distribution."""
    bins = tensors.pop(name, None)
    if bins is not None and bins.flatten().tolist() != list(range(BINS)):
        raise WeightsError(f"{source}: {name} is not 0 to {BINS - 1}")
