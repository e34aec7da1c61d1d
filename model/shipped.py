# SPDX-License-Identifier: Apache-2.0
"""Models that have a name: the one that lies in this package, and those that were fetched.

What settings leave open follows from the weights. Without weights the package's own are taken. A
card of a released model says which score to keep boxes from, and at which image size its figures
were measured; both hold unless somebody set another, in a file, an option or a call.
"""

import os
from importlib.resources import files
from pathlib import Path
from typing import Final

from model.card import Card, read_card
from model.config import ModelConfig, Suppression
from model.engines.cache import cache_folder
from model.errors import ConfigError

DEFAULT: Final = "street-t"
"""Name of the model that is taken where none is named."""
SUFFIX: Final = ".safetensors"
NO_WEIGHTS: Final = (
    "no weights: pass --model FILE, made by: sightline import CHECKPOINT --output FILE"
)


def package_folder() -> Path:
    """Return where the package has its own models."""
    return Path(str(files("model"))) / "default"


def shipped_folder() -> Path:
    """Return where the models that need no network are: `$SIGHTLINE_MODELS`, else the package."""
    chosen = os.environ.get("SIGHTLINE_MODELS")
    return Path(chosen) if chosen else package_folder()


def fetched_folder() -> Path:
    """Return where `sightline fetch` puts what it fetched."""
    return cache_folder() / "models"


def named_models() -> dict[str, Path]:
    """Return every model that has a name, the package's own first."""
    found: dict[str, Path] = {}
    for folder in (shipped_folder(), fetched_folder()):
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            found.setdefault(path.stem, path)
    return found


def has_default() -> bool:
    """Say whether a run needs no weights to be named."""
    return _default_path().is_file()


def find_weights(named: Path | None) -> Path:
    """Return the file of a model: the default one, one with a name, or simply a file.

    Raises:
        ConfigError: none was named and none is shipped, or nothing has that name.
    """
    if named is None:
        if not has_default():
            raise ConfigError(NO_WEIGHTS)
        return _default_path()
    if named.exists() or named.suffix or len(named.parts) != 1:
        return named
    models = named_models()
    if named.name not in models:
        known = ", ".join(models) or "none"
        raise ConfigError(
            f"model.weights: no file and no model is called {named}; models here: {known}; "
            "sightline fetch lists those that can be had"
        )
    return models[named.name]


def with_weights(config: ModelConfig) -> ModelConfig:
    """Name the file that runs, and the image size it was measured at where nobody set one.

    Raises:
        ModelError: there is no such model, or its card cannot be read.
    """
    weights = find_weights(config.weights)
    changes: dict[str, object] = {"weights": weights}
    card = read_card(weights)
    unset = "image_size" not in config.model_fields_set
    if card.released and card.form == "fused" and unset:  # an artefact may have but one size
        changes["image_size"] = card.released.measured.image_size
    return config.model_copy(update=changes)


def with_min_score(suppression: Suppression, card: Card) -> Suppression:
    """Take over the score that a card recommends where nobody set one."""
    if card.released is None or "min_score" in suppression.model_fields_set:
        return suppression
    return suppression.model_copy(update={"min_score": card.released.min_score})


def _default_path() -> Path:
    return shipped_folder() / f"{DEFAULT}{SUFFIX}"
