# SPDX-License-Identifier: Apache-2.0
"""Installing and removing, below a root of its own, from a bundle with a package of three lines.

The whole of it, on a bare system without a network, is in tests/benchmarks/bare_debian.py.
"""

import ensurepip
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.box.manifest import Manifest, describe_files, write_manifest
from tests.pipeline.box.tiny_wheels import make_wheel

DEPLOY = Path(__file__).parents[3] / "deploy"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
PIP = next((Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"), None)

needs_pip = pytest.mark.skipif(PIP is None, reason="this Python has no wheel of pip")

Tree = dict[str, tuple[int, str]]


def make_bundle(folder: Path, *, version: str = "1.2", doctor: int = 0) -> Path:
    """A bundle whose `sightline doctor` ends with that code."""
    code = f"import sys\ndef main():\n    print('looked')\n    sys.exit({doctor})\n"
    start = {"entry_points.txt": "[console_scripts]\nsightline = own:main\n", "own.py": code}
    make_wheel(folder / "wheels", "sightline", version, files=start)
    if PIP is not None:
        shutil.copy(PIP, folder / "wheels")
    for part, name in (("weights", "model.safetensors"), ("config/trusted", "maker.pub")):
        (folder / part).mkdir(parents=True)
        (folder / part / name).write_text(name)
    for name in ("serve.yaml", "environment"):
        shutil.copy(DEPLOY / "config" / name, folder / "config")
    (folder / "deploy").mkdir()
    for name in ("make_version.sh", "sightline.service"):
        shutil.copy(DEPLOY / name, folder / "deploy")
    for name in ("install.sh", "uninstall.sh"):
        shutil.copy(DEPLOY / name, folder)
    list_files(folder, version)
    return folder


def list_files(bundle: Path, version: str = "1.2", *, arch: str = "", python: str = PYTHON) -> None:
    manifest = Manifest(
        version=version,
        arch=arch or platform.machine(),
        python=python,
        created="2026-01-01T00:00:00Z",
        files=describe_files(bundle),
    )
    write_manifest(bundle, manifest)


def run(script: Path, root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    root.mkdir(exist_ok=True)
    return subprocess.run(
        ["sh", str(script), *arguments],
        env={**os.environ, "SIGHTLINE_ROOT": str(root)},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )


def tree_of(root: Path) -> Tree:
    """Every path with its mode and what it holds."""
    return {
        str(path.relative_to(root)): (
            path.lstat().st_mode,
            path.read_text(errors="replace") if path.is_file() else "",
        )
        for path in root.rglob("*")
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A system that has some of the folders, and files of others in them."""
    root = tmp_path / "root"
    for folder in ("etc/systemd/system", "var/lib", "usr/local"):
        (root / folder).mkdir(parents=True)
    (root / "etc/systemd/system/other.service").write_text("of others")
    return root


@needs_pip
def test_what_was_installed_twice_leaves_nothing_when_it_is_removed(
    tmp_path: Path, root: Path
) -> None:
    bundle, before = make_bundle(tmp_path / "bundle"), tree_of(root)

    first = run(bundle / "install.sh", root)
    assert first.returncode == 0, first.stderr
    assert "looked" in first.stdout
    installed = root / "opt/sightline/1.2"
    assert (root / "opt/sightline/current").readlink() == Path("1.2")
    assert (installed / "weights/model.safetensors").read_text() == "model.safetensors"
    assert (root / "etc/sightline/trusted/maker.pub").read_text() == "maker.pub"
    assert (root / "etc/sightline/environment").stat().st_mode & 0o777 == 0o640
    assert str((root / "usr/local/bin/sightline").readlink()).endswith(
        "/opt/sightline/current/venv/bin/sightline"
    )
    settings = root / "etc/sightline/serve.yaml"
    settings.write_text("mine")
    python = (installed / "venv/bin/sightline").stat().st_mtime_ns

    again = run(bundle / "install.sh", root)
    assert again.returncode == 0, again.stderr
    assert settings.read_text() == "mine"
    assert (installed / "venv/bin/sightline").stat().st_mtime_ns == python

    removed = run(root / "opt/sightline/uninstall.sh", root)
    assert removed.returncode == 0, removed.stderr
    assert tree_of(root) == before


@needs_pip
def test_a_version_that_does_not_work_is_taken_back(tmp_path: Path, root: Path) -> None:
    bundle, before = make_bundle(tmp_path / "bundle", doctor=1), tree_of(root)

    failed = run(bundle / "install.sh", root)

    assert failed.returncode == 2
    assert "doctor found something missing" in failed.stderr
    assert "all is as it was" in failed.stderr
    assert tree_of(root) == before


def damage(bundle: Path) -> None:
    (bundle / "config/environment").write_text("# other\n")


def lose(bundle: Path) -> None:
    (bundle / "weights/model.safetensors").unlink()


def add(bundle: Path) -> None:
    (bundle / "wheels/more-1.0-py3-none-any.whl").write_text("more")


def of_another_processor(bundle: Path) -> None:
    list_files(bundle, arch="riscv64")


def of_another_python(bundle: Path) -> None:
    list_files(bundle, python="3.99")


def of_a_way_out(bundle: Path) -> None:
    list_files(bundle, "../../etc")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (damage, "config/environment: not what the manifest lists"),
        (lose, "weights/model.safetensors: missing from the bundle"),
        (add, "more-1.0-py3-none-any.whl: the manifest does not list it"),
        (of_another_processor, "this bundle is for riscv64"),
        (of_another_python, f"make one with: sightline bundle --python {PYTHON}"),
        (of_a_way_out, "cannot name a folder"),
    ],
)
def test_a_bundle_that_is_not_sound_or_not_for_this_box_changes_nothing(
    tmp_path: Path, root: Path, spoil: object, says: str
) -> None:
    bundle, before = make_bundle(tmp_path / "bundle"), tree_of(root)
    assert callable(spoil)
    spoil(bundle)

    refused = run(bundle / "install.sh", root)

    assert refused.returncode == 2
    assert says in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert tree_of(root) == before


def test_another_version_that_is_installed_is_for_update_to_replace(
    tmp_path: Path, root: Path
) -> None:
    (root / "opt/sightline/1.1").mkdir(parents=True)
    (root / "opt/sightline/current").symlink_to("1.1")
    bundle, before = make_bundle(tmp_path / "bundle"), tree_of(root)

    refused = run(bundle / "install.sh", root)

    assert refused.returncode == 2
    assert f"version 1.1 is installed; go on with: sightline update {bundle}" in refused.stderr
    assert tree_of(root) == before


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ((), set()),
        (("--keep-data",), {"var/lib/sightline/events.db"}),
        (("--keep-config",), {"etc/sightline/serve.yaml"}),
    ],
    ids=["all", "data", "config"],
)
def test_removal_keeps_data_and_settings_only_where_asked_to(
    root: Path, options: tuple[str, ...], kept: set[str]
) -> None:
    ours = ("opt/sightline/1.2/manifest.json", "var/lib/sightline/events.db",
            "etc/sightline/serve.yaml", "var/cache/sightline/engine.blob",
            "etc/systemd/system/sightline.service")  # fmt: skip
    others = {path.relative_to(root) for path in root.rglob("*") if path.is_file()}
    for name in ours:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("ours")

    assert run(DEPLOY / "uninstall.sh", root, *options).returncode == 0

    left = {path.relative_to(root) for path in root.rglob("*") if path.is_file()}
    assert left == others | {Path(name) for name in kept}


def test_scripts_are_clean_to_shellcheck() -> None:
    checker = shutil.which("shellcheck")
    if checker is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(
        [checker, *map(str, DEPLOY.glob("*.sh"))], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
