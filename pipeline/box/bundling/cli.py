# SPDX-License-Identifier: Apache-2.0
"""sightline bundle: parse, call, print."""

import platform
from pathlib import Path
from typing import Annotated, Literal, cast

from cyclopts import Parameter

from pipeline.box.bundling.bundle import Recipe, make_bundle
from pipeline.box.bundling.wheelhouse import Arch, Target
from pipeline.box.manifest import MANIFEST, digest


def bundle(
    *,
    output: Annotated[Path, Parameter(alias="-o")],
    arch: Arch | None = None,
    python: Literal["3.11", "3.12", "3.13"] = "3.11",
    gpu: Annotated[bool, Parameter(negative=())] = False,
    weights: Path | None = None,
    key: Path | None = None,
) -> int:
    """Make a folder with all that a box needs to install Sightline without a network.

    Args:
        output: Folder for it; wheels of an earlier bundle there are used again.
        arch: The box's processor; this machine's if not given.
        python: The box's Python: Debian 12 has 3.11, Ubuntu 24.04 has 3.12, Debian 13 has 3.13.
        gpu: Take torch for NVIDIA GPUs, which is some gigabytes more.
        weights: Weights or an artefact; the package's own model if not given.
        key: Secret key of `sightline bundle-key` that signs it.
    """
    target = Target(arch=arch or cast(Arch, platform.machine()), python=python, gpu=gpu)
    print(f"resolving wheels for {target}")
    manifest = make_bundle(output, Recipe(target=target, weights=weights, key=key))
    size_mb = sum(entry.bytes for entry in manifest.files.values()) / 1e6
    print(f"{output}: version {manifest.version}, {len(manifest.files)} files, {size_mb:.0f} MB")
    print(f"sha256 of {MANIFEST}, to compare on the box: {digest(output / MANIFEST)}")
    return 0
