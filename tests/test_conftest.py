# SPDX-License-Identifier: Apache-2.0
"""What becomes of tests that need what this machine may lack."""

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from model.cuda import presence
from tests.conftest import pytest_runtest_setup

ROOT = Path(__file__).parents[1]
TWO_TESTS = """
import pytest

@pytest.mark.needs_cuda
def test_a():
    pass

def test_b():
    pass
"""


def run_pytest(folder: Path, **environment: str) -> str:
    """What pytest says of two tests of which the first needs a GPU."""
    (folder / "test_two.py").write_text(TWO_TESTS)
    settings = ("-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder))
    plugins = ("-p", "tests.conftest", "-p", "no:cacheprovider")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", *settings, *plugins, str(folder)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.stdout


@pytest.mark.skipif(presence.what_lacks() is None, reason="there is a GPU here")
def test_a_missing_gpu_is_an_error_where_one_is_required(tmp_path: Path) -> None:
    said = run_pytest(tmp_path, REQUIRE_CUDA="1")
    assert "1 passed, 1 error" in said
    assert f"REQUIRE_CUDA=1, and this test needs {presence.what_lacks()}" in said


@pytest.mark.parametrize(
    ("mark", "lacking", "skipped"),
    [("needs_cuda", "a GPU", True), ("needs_cuda", None, False), ("compiled", "a GPU", False)],
)
def test_only_what_needs_a_gpu_is_skipped_and_only_where_one_is_missing(
    mark: str, lacking: str | None, skipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "what_lacks", lambda: lacking)
    monkeypatch.delenv("REQUIRE_CUDA", raising=False)
    item: Any = SimpleNamespace(get_closest_marker=lambda name: mark if name == mark else None)
    expected = pytest.raises(pytest.skip.Exception, match="needs a GPU")
    with expected if skipped else nullcontext():
        pytest_runtest_setup(item)
