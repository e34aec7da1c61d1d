# SPDX-License-Identifier: Apache-2.0
"""Whether this machine can run an artefact that another one made; nothing heavy is imported."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from model.built import Built, Needs
from model.errors import EngineError
from model.processor import cpu_features


def check_machine(path: Path, built: Built) -> None:
    """Refuse an artefact that cannot run here, and say why.

    Raises:
        EngineError: the processor, or the library that runs it, is another one.
    """
    if built.nms is not None:
        raise EngineError(
            f"{path}: suppression is inside its graph, for programs of others; "
            "export one without --nms to run it here"
        )
    if built.engine == "openvino":
        check_openvino(path, built.made_with.get("openvino", ""))
    if built.needs is not None:
        _check_needs(path, built.needs)


def check_openvino(path: Path, made_with: str) -> None:
    """Refuse a graph of a later OpenVINO; what an earlier one wrote, a later one reads."""
    installed = installed_version("openvino")
    if installed and _major(made_with) > _major(installed):
        raise EngineError(
            f"{path}: made with OpenVINO {made_with}, and here is {installed}, which may not read "
            f"it; install openvino>={_major(made_with)}, or export it here"
        )


def installed_version(package: str) -> str | None:
    """Return the version of a package, or nothing if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def release(full: str) -> str:
    """Major and minor number of a version."""
    return ".".join(full.split(".")[:2])


def _check_needs(path: Path, needs: Needs) -> None:
    if needs.machine != platform.machine():
        raise EngineError(
            f"{path}: compiled for {needs.machine}, and this machine is {platform.machine()}; "
            "export it here"
        )
    lacking = sorted(set(needs.features) - cpu_features())
    if lacking:
        raise EngineError(
            f"{path}: compiled for a processor with {', '.join(lacking)}, which this one lacks; "
            "export it here"
        )
    installed = installed_version("torch")
    if installed is None:
        raise EngineError(f"{path}: needs torch {needs.torch}; install it with: pip install torch")
    if release(installed) != needs.torch:
        raise EngineError(
            f"{path}: compiled with torch {needs.torch}, and here is {release(installed)}; "
            f"install torch=={needs.torch}.*, or export it here"
        )


def _major(full: str) -> int:
    number = full.split(".", 1)[0]
    return int(number) if number.isdigit() else 0
