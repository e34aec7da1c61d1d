# SPDX-License-Identifier: Apache-2.0
"""Settings: frozen trees, read from YAML in one place and checked once."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model.errors import ConfigError

Ratio = Annotated[float, Field(ge=0, le=1)]
EngineName = Literal["auto", "openvino", "torch", "inductor", "onnx", "aoti", "tensorrt", "cuda"]
Precision = Literal["auto", "f32", "bf16", "f16", "accuracy"]

_QUOTED = re.compile(r"('<[a-z ]+>'|'.')|['\"].*['\"]", re.DOTALL)
"""First YAML's own words, such as '<block end>', and single signs; else words of the file."""


class Settings(BaseModel):
    """A node of a settings tree: frozen, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


S = TypeVar("S", bound=Settings)


class Suppression(Settings):
    """Non-maximum suppression."""

    min_score: Ratio = 0.25
    """Only candidates that score above this are looked at. Where nobody sets it, the score that
    the model's card recommends, if it recommends one."""
    max_iou: Ratio = 0.7
    """A box that overlaps a better one by more than this is dropped."""
    max_boxes: Annotated[int, Field(ge=1)] = 300
    """Boxes kept per image, the best ones."""
    class_aware: bool = True
    """Whether only boxes of one class drop each other."""
    multi_label: bool = False
    """Whether an anchor gives a box for each of its classes, as evaluation has it, or one for its
    best class."""


class ModelConfig(Settings):
    """Which detector runs, and how."""

    weights: Path | None = None
    """A Sightline weights file, an artefact exported from one, or the name of a model; None for
    the model that lies in this package (`model/shipped.py`)."""
    engine: EngineName = "auto"
    """`auto` is what an artefact was made for, else `cuda` where there is an NVIDIA GPU and what it
    takes, else OpenVINO where it is installed, else eager torch; `onnx` and `aoti` run artefacts of
    their own only."""
    precision: Precision = "auto"
    """`auto` is bf16 where the processor computes in it, else f32, and f16 on a GPU; `accuracy` is
    exact float32."""
    image_size: Annotated[int, Field(ge=32, le=4096, multiple_of=32)] = 640
    """Long side of the network's image, in pixels. Where nobody sets it, the one that a released
    model was measured at."""


def load_settings(kind: type[S], path: Path | None, overrides: Sequence[str] = ()) -> S:
    """Read `path` as a `kind`, after `a.b=value` overrides, or raise one `ConfigError`.

    Args:
        kind: The settings to build.
        path: A YAML file; without one everything is default or overridden.
        overrides: Assignments such as `suppression.max_iou=0.6`, the value written as YAML.
    """
    tree = {} if path is None else read_tree(path)
    for override in overrides:
        _apply(tree, override)
    try:
        return kind.model_validate(tree)
    except ValidationError as invalid:
        where = kind.__name__ if path is None else str(path)
        raise ConfigError(f"{where}: {describe_faults(invalid)}") from None


def describe_faults(invalid: ValidationError) -> str:
    """Name every fault with its dotted path; three a line at most, the rest beside them."""
    faults = [
        f"{'.'.join(map(_key, fault['loc'])) or 'the settings'}: {_lowered(fault['msg'])}"
        for fault in invalid.errors()
    ]
    if len(faults) == 1:
        return faults[0]
    between = "\n  " if len(faults) <= 3 else "; "
    return f"{len(faults)} faults:{between if len(faults) <= 3 else ' '}{between.join(faults)}"


def _key(part: str | int) -> str:
    """A key as it may be shown; an address that stands where a name belongs holds a password."""
    return "(an address)" if "://" in str(part) else str(part)


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]


def read_tree(path: Path) -> dict[str, Any]:
    """Read a YAML file of names and values, or raise one `ConfigError`."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{path}: cannot read these settings: {reason}") from None
    except yaml.YAMLError as fault:
        raise ConfigError(f"{path}: not valid YAML: {_place_of(fault)}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        found = type(tree).__name__
        raise ConfigError(f"{path}: settings are a mapping of names to values, got a {found}")
    return tree


def _place_of(fault: yaml.YAMLError) -> str:
    """Where it is and what is wrong, without what stands there: that may be a password."""
    if not isinstance(fault, yaml.MarkedYAMLError) or fault.problem_mark is None:
        return " ".join(str(fault).split())
    mark = fault.problem_mark
    said = ", ".join(part for part in (fault.context, fault.problem) if part)
    said = _QUOTED.sub(lambda quoted: quoted[1] or "something", said)
    return f"line {mark.line + 1}, column {mark.column + 1}: {said}"


def _apply(tree: dict[str, Any], override: str) -> None:
    """Put the value of one `a.b=value` into `tree`."""
    name, equals, text = override.partition("=")
    parts = name.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"override {override!r}: expected NAME.NAME=VALUE")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"override {override!r}: {text!r} is not valid YAML") from None
    node: Any = tree
    for depth, part in enumerate(parts[:-1], start=1):
        node = _child(node, part, f"override {override!r}: {'.'.join(parts[:depth])}")
    if isinstance(node, list):
        node[_position(node, parts[-1], f"override {override!r}: {name.strip()}")] = value
    elif isinstance(node, dict):
        node[parts[-1]] = value


def _child(node: Any, part: str, where: str) -> Any:
    """Step down to `part`, which is made where a mapping lacks it."""
    if isinstance(node, list):
        child = node[_position(node, part, where)]
    else:
        child = node.get(part)
        if child is None:
            child = node[part] = {}
    if not isinstance(child, dict | list):
        raise ConfigError(f"{where} is a {type(child).__name__}, which has no fields")
    return child


def _position(items: list[Any], part: str, where: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise ConfigError(f"{where}: expected a position from 0 to {len(items) - 1}")
    return int(part)
