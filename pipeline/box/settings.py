# SPDX-License-Identifier: Apache-2.0
"""What an update must know of a service's settings, whichever version they are for."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from model.config import read_tree
from model.errors import ConfigError
from pipeline.box.layout import Layout
from pipeline.serve.access import HttpConfig

_DATABASE: Final = "events.db"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """Where a service answers and where it keeps events."""

    http: HttpConfig | None
    database: Path
    weights: str | None
    """As the settings have it."""


def read_hints(layout: Layout) -> Hints:
    """Look into the settings of this box.

    Raises:
        ConfigError: they cannot be read, or name no address that can be asked.
    """
    tree = read_tree(layout.settings)
    os.environ.update(read_environment(layout.environment))
    try:
        http = _http_of(tree.get("http", {}))
    except ValidationError as fault:
        reason = fault.errors()[0]["msg"]
        raise ConfigError(f"{layout.settings}: http: {reason}") from None
    path = _node(tree, "events", "database").get("path") or _DATABASE
    weights = _node(tree, "model").get("weights")
    return Hints(http=http, database=layout.state / str(path), weights=weights)


def weights_in(folder: Path, name: str) -> Path:
    """The weights of that name that come with a version; the only ones where none have it."""
    there = [path for path in folder.glob("*") if path.is_file()]
    named = folder / name
    return there[0] if len(there) == 1 and not named.exists() else named


def read_environment(path: Path) -> dict[str, str]:
    """The variables of a service's environment file; none if there is none."""
    if not path.exists():
        return {}
    try:
        return dict(_variables(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as fault:
        raise ConfigError(f"{path}: cannot be read ({fault}); run this as root") from None


def _variables(text: str) -> Iterator[tuple[str, str]]:
    for line in map(str.strip, text.splitlines()):
        name, equals, value = line.partition("=")
        if equals and not line.startswith(("#", ";")):
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
            yield name.strip(), value[1:-1] if quoted else value


def _http_of(node: Any) -> HttpConfig | None:
    """Where it answers; what else a later version has there is its own."""
    if not isinstance(node, dict):
        return None if node is None else HttpConfig.model_validate(node)
    return HttpConfig.model_validate({key: node[key] for key in ("listen", "token") if key in node})


def _node(tree: dict[str, Any], *names: str) -> dict[str, Any]:
    found: Any = tree
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}
