# SPDX-License-Identifier: Apache-2.0
"""The wheels of one target, resolved by pip among a few that lie in a folder."""

from pathlib import Path

import pytest

from pipeline.box.bundling import wheelhouse
from pipeline.box.bundling.wheelhouse import Target, check_build, collect
from pipeline.errors import BundleRefused
from tests.pipeline.box.tiny_wheels import make_wheel

ARM = Target(arch="aarch64", python="3.13")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project, and a folder with wheels as all that pip knows."""
    known = tmp_path / "known"
    make_wheel(known, "pip")
    make_wheel(known, "torch", "2.10", tag="cp313-cp313-manylinux_2_28_aarch64")
    make_wheel(known, "torch", "2.13", tag="cp313-cp313-manylinux_2_28_aarch64")
    make_wheel(known, "torch", tag="cp311-cp311-manylinux_2_28_x86_64")
    make_wheel(known, "opencv_python_headless", "5.1", tag="cp37-abi3-manylinux_2_28_aarch64")
    make_wheel(known, "for_arm")
    make_wheel(known, "for_others")
    make_wheel(known, "for_new_python")
    needs = (
        "opencv-python>=4",
        "for-arm; platform_machine == 'aarch64'",
        "for-others; platform_machine != 'aarch64'",
        "for-new-python; python_version >= '3.13'",
    )
    make_wheel(known, "drawing", needs=needs)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(known))
    project = tmp_path / "project"
    project.mkdir()
    write_needs(project, "torch", "opencv-python>=4.9", "drawing")
    return project


def write_needs(project: Path, *needs: str) -> None:
    (project / "pyproject.toml").write_text(
        f"[project]\ndependencies = {list(needs)}\n[project.optional-dependencies]\ngpu = []\n"
    )


def test_wheels_are_those_of_the_target_and_its_opencv_opens_no_windows(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheelhouse, "build_package", lambda _, wheels: make_wheel(wheels, "own"))

    collect(source, ARM, tmp_path / "wheels")

    assert sorted(wheel.name for wheel in (tmp_path / "wheels").iterdir()) == [
        "drawing-1.0-py3-none-any.whl",
        "for_arm-1.0-py3-none-any.whl",
        "for_new_python-1.0-py3-none-any.whl",
        "opencv_python-5.1+headless-py3-none-any.whl",
        "opencv_python_headless-5.1-cp37-abi3-manylinux_2_28_aarch64.whl",
        "own-1.0-py3-none-any.whl",
        "pip-1.0-py3-none-any.whl",
        "torch-2.10-cp313-cp313-manylinux_2_28_aarch64.whl",
    ]


def test_what_pip_cannot_find_is_said_and_wheels_that_were_there_stay(
    source: Path, tmp_path: Path
) -> None:
    write_needs(source, "torch", "opencv-python>=4.9", "drawing", "nowhere-to-be-had>=3")
    kept = make_wheel(tmp_path / "wheels", "kept")

    with pytest.raises(BundleRefused) as refused:
        collect(source, ARM, tmp_path / "wheels")

    text = str(refused.value)
    assert text.startswith("no wheels for aarch64, Python 3.13, CPU: pip says: ")
    assert "nowhere-to-be-had>=3" in text
    assert "\n" not in text
    assert kept.exists()


@pytest.mark.parametrize(
    ("others", "gpu", "fault"),
    [
        ((), False, None),
        (("nvidia_cublas",), True, None),
        (("nvidia_cublas",), False, "pip took the CUDA build"),
        ((), True, "pip took a CPU build"),
    ],
    ids=["cpu", "cuda", "cuda-unasked", "cpu-for-a-gpu"],
)
def test_torch_is_the_build_that_was_asked_for(
    tmp_path: Path, others: tuple[str, ...], gpu: bool, fault: str | None
) -> None:
    for name in ("torch", *others):
        make_wheel(tmp_path, name)
    target = Target(arch="x86_64", python="3.11", gpu=gpu)

    if fault is None:
        check_build(target, tmp_path)
    else:
        with pytest.raises(BundleRefused, match=fault):
            check_build(target, tmp_path)
