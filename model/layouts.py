# SPDX-License-Identifier: Apache-2.0
"""Layouts of published weights, as data: how each code base numbers layers and names tensors.

Three kinds of files hold the same network. The official code base has a training form, whose
auxiliary branch guides the training and is thrown away afterwards, and a converted form without
it; ultralytics names its tensors as the converted form does; MultimediaTechLab's YOLO (MIT) has
other names, with or without the branch. Everything here ends under official names,
`model.{layer}.{path}`, and says which tensors are left over. Only names are looked at, not values.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from model.errors import WeightsError, shown

if TYPE_CHECKING:
    from torch import Tensor

Tensors = dict[str, "Tensor"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a file names its tensors, and whether it has an auxiliary branch."""

    names: Literal["official", "ultralytics", "MIT"]
    training: bool

    def __str__(self) -> str:
        """Return the layout in words."""
        return f"{self.names} names, {'training form' if self.training else 'without auxiliary'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Branches:
    """The tensors of a file, those that are deployed apart from those that guide training."""

    main: Tensors
    """Under the names of the converted form."""
    auxiliary: Tensors
    """Under the names of the official training form; empty if the file has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingForm:
    """The layers of an official training form that have parameters, but for the head."""

    main: dict[int, int]
    """Layers that are deployed, and their numbers in the converted form."""
    twins: dict[int, int]
    """Auxiliary layers, and for each a main layer that is built alike."""
    routes: tuple[int, ...]
    """Auxiliary layers that are one convolution with a bias."""
    head: int
    """Number of the head in the converted form."""


TRAINING_FORMS: Final[dict[int, TrainingForm]] = {
    29: TrainingForm(  # T, S
        main={layer: layer for layer in range(22)},
        twins={22: 9, 25: 12, 28: 15},
        routes=(),
        head=22,
    ),
    38: TrainingForm(  # M, C
        main={layer: layer - 1 for layer in range(1, 23)},
        twins={26: 1, 27: 2, 28: 3, 29: 4, 31: 5, 32: 6, 34: 7, 35: 8, 37: 9},
        routes=(23, 24, 25),
        head=22,
    ),
    49: TrainingForm(  # E
        main={layer: layer for layer in range(29)} | {layer: layer - 7 for layer in range(36, 49)},
        twins={29: 36, 32: 39, 35: 42},
        routes=(),
        head=42,
    ),
}
"""Official training forms, by the number of their head."""

MAIN_HEAD: Final = {"cv4": "cv2", "cv5": "cv3", "dfl2": "dfl"}
"""Parts of the main head of a training form, and what they are called in the converted form; the
auxiliary head comes first and has the latter names there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MitForm:
    """The layers of a file of the MIT code base, and their numbers in the official one."""

    body: dict[int, int]
    heads: dict[int, tuple[int, str, str, str]]
    """Number of the official head, and its names for box branch, score branch and distances."""


MIT_FORMS: Final[dict[frozenset[int], MitForm]] = {
    frozenset({22}): MitForm(
        body={layer: layer for layer in range(22)},
        heads={22: (22, "cv2", "cv3", "dfl")},
    ),
    frozenset({22, 30}): MitForm(  # T, S
        body={layer: layer for layer in range(22)} | {layer: layer - 1 for layer in range(23, 30)},
        heads={22: (29, "cv4", "cv5", "dfl2"), 30: (29, "cv2", "cv3", "dfl")},
    ),
    frozenset({22, 38}): MitForm(  # M, C
        body={layer: layer + 1 for layer in range(22)} | {layer: layer for layer in range(23, 38)},
        heads={22: (38, "cv4", "cv5", "dfl2"), 38: (38, "cv2", "cv3", "dfl")},
    ),
}
"""Forms of the MIT code base, by the numbers of their heads."""

MIT_PATHS: Final = (
    (re.compile(r"^conv\.(?=conv\.|bn\.)"), "cv1."),
    (re.compile(r"\bbottleneck\."), "m."),
    # two numbered convolutions in a row are RepConv's, whose names are the official ones
    (re.compile(r"(?<!conv\d\.)\bconv(?=\d\.)"), "cv"),
)
"""What is called otherwise inside a layer, and its official name."""

PREFIXES: Final = (
    "ema.model.", "ema.", "model.model.", "module.model.", "model.", "module.", ""
)  # fmt: skip
"""What may stand before a layer's number: modules that the network is wrapped in."""
NUMBERED: Final = re.compile(r"(?P<prefix>(?:[A-Za-z_]\w*\.)*)(?P<rest>[0-9]{1,4}\..+)", re.ASCII)


def official(path: Path, tensors: Tensors) -> tuple[Layout, Tensors]:
    """Return the layout of a file, and its tensors under official names of the same form.

    Raises:
        WeightsError: the names are of no known layout.
    """
    bare = _without_prefix(path, tensors)
    from_mit = any(".heads." in name for name in bare)
    if from_mit:
        bare = _renamed_from_mit(path, bare)
    head = _head(path, bare)
    if f"{head}.cv7.0.2.weight" in bare:
        raise WeightsError(f"{path}: it has three heads, a form that is not supported")
    training = f"{head}.cv5.0.2.weight" in bare
    dense = bare.get(f"{head}.cv2.0.1.conv.weight")
    is_dense = dense is not None and dense.ndim == 4 and dense.shape[0] == dense.shape[1]
    like_official: Literal["official", "ultralytics"] = "ultralytics" if is_dense else "official"
    layout = Layout(names="MIT" if from_mit else like_official, training=training)
    return layout, {f"model.{name}": tensor for name, tensor in bare.items()}


def split(path: Path, tensors: Tensors) -> Branches:
    """Tell what is deployed from the auxiliary branch, whose tensors must be exactly the known.

    Args:
        path: The file, for errors.
        tensors: Under official names, as `official` returns them.
    """
    bare = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    head = _head(path, bare)
    if f"{head}.cv5.0.2.weight" not in bare:
        return Branches(main=dict(tensors), auxiliary={})
    form = TRAINING_FORMS.get(head)
    if form is None:
        known = ", ".join(map(str, TRAINING_FORMS))
        raise WeightsError(f"{path}: its double head is layer {head}, expected one of {known}")
    main, auxiliary = {}, {}
    for name, tensor in bare.items():
        converted = _converted(name, form, head)
        if converted is None:
            auxiliary[f"model.{name}"] = tensor
        else:
            main[f"model.{converted}"] = tensor
    wanted = _auxiliary_names(bare, form, head)
    _check_same(path, "auxiliary branch", found=auxiliary, wanted=wanted)
    return Branches(main=main, auxiliary=auxiliary)


def name_first(names: Iterable[str], limit: int = 3) -> str:
    """Return the first few names, and how many more there are; each is cut to fit a line."""
    ordered = list(names)
    more = f" and {len(ordered) - limit} more" if len(ordered) > limit else ""
    return ", ".join(map(shown, ordered[:limit])) + more


def foreign(path: Path, why: str) -> WeightsError:
    """Say that a file's tensors are not those of our network."""
    return WeightsError(f"{path}: not a detector of this family: {why}")


def _without_prefix(path: Path, tensors: Tensors) -> Tensors:
    """Return the tensors by layer number and path: of two copies, the averaged one."""
    groups: dict[str, Tensors] = {}
    odd = []
    for name, tensor in tensors.items():
        match = NUMBERED.fullmatch(name)
        if match is None or match["prefix"] not in PREFIXES:
            odd.append(name)
        else:
            groups.setdefault(match["prefix"], {})[match["rest"]] = tensor
    if odd or not groups:
        raise foreign(path, f"it has no place for {name_first(odd)}" if odd else "it is empty")
    ordered = sorted(groups, key=PREFIXES.index)
    averaged = ordered[0].startswith("ema.")
    if len(ordered) > 1 + averaged:
        raise foreign(path, f"it has several networks: {', '.join(map(repr, ordered))}")
    if len(ordered) == 2:
        _check_same(path, "averaged copy", found=groups[ordered[0]], wanted=groups[ordered[1]])
    return groups[ordered[0]]


def _head(path: Path, bare: Tensors) -> int:
    """Return the number of the layer that scores classes."""
    end = ".cv3.0.2.weight"
    layers = [name.removesuffix(end) for name in bare if name.endswith(end)]
    if len(layers) != 1 or not layers[0].isdecimal():
        raise foreign(path, f"it has {len(layers)} heads, expected one layer with cv3.0.2.weight")
    return int(layers[0])


def _converted(name: str, form: TrainingForm, head: int) -> str | None:
    """Return the name in the converted form, or None for a part of the auxiliary branch."""
    layer, _, path = name.partition(".")
    if int(layer) == head:
        part, _, rest = path.partition(".")
        return f"{form.head}.{MAIN_HEAD[part]}.{rest}" if part in MAIN_HEAD else None
    number = form.main.get(int(layer))
    return None if number is None else f"{number}.{path}"


def _auxiliary_names(bare: Tensors, form: TrainingForm, head: int) -> set[str]:
    """Return the names an auxiliary branch has beside these main layers."""
    names = {f"model.{layer}.conv.{kind}" for layer in form.routes for kind in ("weight", "bias")}
    for name in bare:
        layer, _, path = name.partition(".")
        part, _, rest = path.partition(".")
        names |= {f"model.{copy}.{path}" for copy, twin in form.twins.items() if twin == int(layer)}
        if int(layer) == head and part in MAIN_HEAD:
            names.add(f"model.{head}.{MAIN_HEAD[part]}.{rest}")
    return names


def _check_same(path: Path, what: str, *, found: Iterable[str], wanted: Iterable[str]) -> None:
    missing, unused = sorted({*wanted} - {*found}), sorted({*found} - {*wanted})
    if missing or unused:
        sides = (("lacks", missing), ("has no place for", unused))
        faults = [f"{verb} {name_first(names)}" for verb, names in sides if names]
        raise foreign(path, f"its {what} {'; '.join(faults)}")


def _renamed_from_mit(path: Path, bare: Tensors) -> Tensors:
    """Return the tensors under official names: the distances, stored for each level, once."""
    heads = frozenset(int(name.partition(".")[0]) for name in bare if ".heads." in name)
    form = MIT_FORMS.get(heads)
    if form is None:
        raise foreign(path, f"it has heads at layers {', '.join(map(str, sorted(heads)))}")
    renamed: Tensors = {}
    for name, tensor in bare.items():
        ours = _name_from_mit(name, form)
        if ours is None:
            raise foreign(path, f"it has no place for {shown(name)}")
        if name.endswith(".anc2vec.anc2vec.weight"):
            tensor = tensor.flatten()[None, :, None, None]
        known = renamed.setdefault(ours, tensor)
        if known is not tensor and known.tolist() != tensor.tolist():
            raise foreign(path, f"{shown(name)} differs from another level's")
    return renamed


def _name_from_mit(name: str, form: MitForm) -> str | None:
    layer, _, path = name.partition(".")
    if int(layer) in form.heads:
        return _head_name_from_mit(path, form.heads[int(layer)])
    if int(layer) not in form.body:
        return None
    for pattern, replacement in MIT_PATHS:
        path = pattern.sub(replacement, path)
    return f"{form.body[int(layer)]}.{path}"


def _head_name_from_mit(path: str, names: tuple[int, str, str, str]) -> str | None:
    head, box, score, bins = names
    match = re.fullmatch(r"heads\.([0-2])\.(anchor_conv|class_conv|anc2vec)\.(.+)", path)
    if match is None:
        return None
    level, part, rest = match.groups()
    if part == "anc2vec":
        return f"{head}.{bins}.conv.weight" if rest == "anc2vec.weight" else None
    return f"{head}.{box if part == 'anchor_conv' else score}.{level}.{rest}"
