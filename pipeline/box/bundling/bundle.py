# SPDX-License-Identifier: Apache-2.0
"""A bundle from a checkout: wheels, model, settings, scripts and the manifest over them."""

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from model.shipped import find_weights
from pipeline.box.bundling.wheelhouse import Target, collect
from pipeline.box.files import replace_file
from pipeline.box.manifest import (
    MANIFEST,
    SIGNATURE,
    Manifest,
    describe_files,
    write_manifest,
)
from pipeline.box.signing import sign_bundle
from pipeline.errors import BundleRefused
from pipeline.keyfiles import PUBLIC_SUFFIX

SOURCE: Final = Path(__file__).parents[3]
"""The checkout; an installed package has no scripts to bundle."""
_TOP: Final = ("install.sh", "uninstall.sh")
_PARTS: Final = (
    "make_version.sh",
    "recover.sh",
    "sightline.service",
    "sightline-collect.service",
)
_MODEL: Final = "model"
"""What the weights are called on a box, whichever they are, so that its settings can stay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What goes into a bundle."""

    target: Target
    weights: Path | None = None
    """A file, an artefact or a name; the package's own model if not given."""
    key: Path | None = None
    """Secret key that signs it; its public half, beside it, goes to the box."""


def make_bundle(folder: Path, recipe: Recipe) -> Manifest:
    """Make a bundle, or make it anew where one lies.

    Raises:
        BundleRefused: the folder holds something else, this is no checkout, or pip found no way.
        ModelError: there are no such weights, or the key cannot be read.
    """
    if not (SOURCE / "deploy/install.sh").is_file():
        raise BundleRefused(f"{SOURCE}: has no deploy/install.sh; bundle from a checkout")
    weights = find_weights(recipe.weights)
    if not weights.exists():
        raise BundleRefused(f"{weights}: no such weights; name a file or a model, or leave it out")
    _clear(folder)
    collect(SOURCE, recipe.target, folder / "wheels")
    _place_weights(weights, folder / "weights")
    _place_settings(folder / "config", weights.suffix)
    for script in _TOP:
        shutil.copyfile(SOURCE / "deploy" / script, folder / script)
    (folder / "deploy").mkdir()
    for name in _PARTS:
        shutil.copyfile(SOURCE / "deploy" / name, folder / "deploy" / name)
    if recipe.key is not None:
        _place_public_key(recipe.key, folder / "config/trusted")
    manifest = _describe(folder, recipe.target)
    write_manifest(folder, manifest)
    if recipe.key is not None:
        sign_bundle(folder, recipe.key)
    return manifest


def _clear(folder: Path) -> None:
    """Leave nothing of an earlier bundle but its wheels, which save the way to the registry."""
    parts = {"wheels", "wheels.partial", "weights", "config", "deploy"}
    known = {*parts, *_TOP, MANIFEST, SIGNATURE}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise BundleRefused(f"{folder}: {failure.strerror}; choose another --output") from None
    for path in folder.iterdir():
        if path.name not in known:
            raise BundleRefused(f"{path}: not of a bundle; choose an empty folder for --output")
    for name in known - {"wheels"}:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _place_weights(weights: Path, folder: Path) -> None:
    folder.mkdir()
    target = folder / f"{_MODEL}{weights.suffix}"
    if weights.is_dir():
        shutil.copytree(weights, target)
    else:
        shutil.copyfile(weights, target)


def _place_settings(folder: Path, suffix: str) -> None:
    folder.mkdir()
    settings = (SOURCE / "deploy/config/serve.yaml").read_text()
    replace_file(folder / "serve.yaml", settings.replace("@MODEL@", f"{_MODEL}{suffix}").encode())
    shutil.copyfile(SOURCE / "deploy/config/environment", folder / "environment")


def _place_public_key(key: Path, folder: Path) -> None:
    public = key.with_suffix(PUBLIC_SUFFIX)
    if not public.is_file():
        raise BundleRefused(f"{public}: missing beside {key.name}; a box needs it to trust updates")
    folder.mkdir()
    shutil.copyfile(public, folder / public.name)


def _describe(folder: Path, target: Target) -> Manifest:
    wheel = next((folder / "wheels").glob("sightline-*.whl"))
    return Manifest(
        version=wheel.name.split("-")[1],
        arch=target.arch,
        python=target.python,
        gpu=target.gpu,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        files=describe_files(folder),
    )
