# SPDX-License-Identifier: Apache-2.0
"""The wheels of one target: what the package needs, resolved by pip, and pip itself.

A box has no libGL, which `opencv-python` needs for windows that nothing here opens. Libraries ask
for it by that name, so a wheel of that name without content lies among the others and asks for
`opencv-python-headless` in its turn. Where pip runs does not matter: it is told of the target.
"""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pipeline.box.bundling import foreign_pip
from pipeline.errors import BundleRefused

Arch = Literal["x86_64", "aarch64"]

_GLIBC_MINORS: Final = range(36, 16, -1)
"""glibc 2.36 is that of Debian 12, the oldest with Python 3.11; wheels for older ones fit too."""
_OPENCV: Final = "opencv-python"
_HEADLESS: Final = "opencv-python-headless"
_ARM_TORCH: Final = "torch<2.11"
"""From 2.11 on, the registry's wheels of torch for ARM ask for gigabytes of CUDA."""
_CUDA: Final = re.compile(r"(nvidia|cuda)_")
_PACKAGES: Final = ("model", "pipeline", "training")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The machine that a bundle is for."""

    arch: Arch
    python: str
    """As 3.11."""
    gpu: bool = False

    def __str__(self) -> str:
        return f"{self.arch}, Python {self.python}, {'CUDA' if self.gpu else 'CPU'}"

    @property
    def pip_options(self) -> tuple[str, ...]:
        """What makes pip choose wheels for it."""
        glibcs = [f"manylinux_2_{minor}_{self.arch}" for minor in _GLIBC_MINORS]
        platforms = (*glibcs, f"manylinux2014_{self.arch}", f"linux_{self.arch}")
        named = (word for platform in platforms for word in ("--platform", platform))
        return (
            "--only-binary=:all:",
            "--implementation=cp",
            f"--python-version={self.python}",
            *named,
        )


def collect(source: Path, target: Target, wheels: Path) -> None:
    """Fill a folder with the wheels of a target; those that lie there are not fetched again.

    Raises:
        BundleRefused: pip found no way, or another build of torch than was asked for.
    """
    fresh = wheels.with_name(f"{wheels.name}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    needed = _requirements(project, target)
    opencv = next(line for line in needed if line.startswith(_OPENCV))
    _download(target, fresh, wheels, [opencv.replace(_OPENCV, _HEADLESS, 1)], "--no-deps")
    pin = _stand_in(fresh)
    _download(target, fresh, wheels, [*needed, pin])
    _download(target, fresh, wheels, ["pip"], "--no-deps")
    check_build(target, fresh)
    build_package(source, fresh)
    shutil.rmtree(wheels, ignore_errors=True)
    fresh.rename(wheels)


def build_package(source: Path, wheels: Path) -> None:
    """Build the wheel of this package from a copy, so that nothing old is swept in.

    Raises:
        BundleRefused: pip could not.
    """
    copy = wheels / "source"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(source / name, copy)
    for module in source.glob("sightline*.py"):
        shutil.copy2(module, copy)
    for package in _PACKAGES:
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source / package, copy / package, ignore=unwanted)
    said = _run([sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", str(wheels), str(copy)])
    shutil.rmtree(copy)
    if said is not None:
        raise BundleRefused(f"{source}: pip could not build its wheel: {said}")


def _requirements(project: dict[str, object], target: Target) -> list[str]:
    needed, extras = project["dependencies"], project["optional-dependencies"]
    assert isinstance(needed, list)
    assert isinstance(extras, dict)
    if target.gpu:
        return [*needed, *extras["gpu"]]
    return [*needed, _ARM_TORCH] if target.arch == "aarch64" else list(needed)


def _download(
    target: Target, fresh: Path, before: Path, needed: Sequence[str], *options: str
) -> None:
    found = [f"--find-links={folder}" for folder in (fresh, before) if folder.is_dir()]
    pip = [sys.executable, foreign_pip.__file__, target.arch, target.python]
    command = [*pip, "download", f"--dest={fresh}", *found, *options, *target.pip_options, *needed]
    said = _run(command)
    if said is not None:
        raise BundleRefused(f"no wheels for {target}: pip says: {said}")


def _run(command: Sequence[str]) -> str | None:
    """None if all went well, else what pip has to say about it."""
    done = subprocess.run([*command, "--quiet"], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines()
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return "; ".join(errors or lines[-1:] or [f"exit code {done.returncode}"])


def _stand_in(wheels: Path) -> str:
    """Make the wheel that stands in for opencv-python; returns the requirement that picks it."""
    headless = next(wheels.glob(f"{_HEADLESS.replace('-', '_')}-*.whl"))
    version = headless.name.split("-")[1]
    name, own = _OPENCV.replace("-", "_"), f"{version}+headless"
    metadata = (
        f"Metadata-Version: 2.1\nName: {_OPENCV}\nVersion: {own}\n"
        f"Requires-Dist: {_HEADLESS}=={version}\n"
    )
    tags = "Wheel-Version: 1.0\nGenerator: sightline\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    info = f"{name}-{own}.dist-info"
    with zipfile.ZipFile(wheels / f"{name}-{own}-py3-none-any.whl", "w") as archive:
        for file, text in (("METADATA", metadata), ("WHEEL", tags)):
            archive.writestr(zipfile.ZipInfo(f"{info}/{file}"), text)
        record = "".join(f"{info}/{file},,\n" for file in ("METADATA", "WHEEL", "RECORD"))
        archive.writestr(zipfile.ZipInfo(f"{info}/RECORD"), record)
    return f"{_OPENCV}=={own}"


def check_build(target: Target, wheels: Path) -> None:
    """Refuse gigabytes of CUDA where none is wanted, and a CPU build that leaves a GPU idle."""
    torch = next(wheels.glob("torch-*.whl")).name
    cuda = any(_CUDA.match(wheel.name) for wheel in wheels.iterdir())
    if cuda and not target.gpu:
        raise BundleRefused(
            f"{torch}: pip took the CUDA build for {target}; name an index that has CPU builds in "
            "PIP_EXTRA_INDEX_URL, or say --gpu"
        )
    if target.gpu and not cuda:
        raise BundleRefused(
            f"{torch}: pip took a CPU build for {target}; name only indexes and folders that have "
            "CUDA builds in PIP_INDEX_URL and PIP_FIND_LINKS, or leave --gpu out"
        )
