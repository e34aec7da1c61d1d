# SPDX-License-Identifier: Apache-2.0
"""What becomes of tests that need what this machine may lack."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from model.cuda import presence

ROOT = Path(__file__).parents[1]
ONE_TEST = """
import pytest

@pytest.mark.needs_cuda
def test_a():
    pass

def test_b():
    pass
"""


def run_pytest(folder: Path, **environment: str) -> str:
    """What pytest says of two tests of which the first needs a GPU."""
    (folder / "test_two.py").write_text(ONE_TEST)
    known = {name: value for name, value in os.environ.items() if name != "REQUIRE_CUDA"}
    settings = ("-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder))
    plugins = ("-p", "tests.conftest", "-p", "no:cacheprovider")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", *settings, *plugins, str(folder)],
        cwd=ROOT,
        env=known | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.stdout


@pytest.mark.skipif(presence.what_lacks() is None, reason="there is a GPU here")
def test_a_missing_gpu_skips_what_needs_one(tmp_path: Path) -> None:
    said = run_pytest(tmp_path)
    assert "1 passed, 1 skipped" in said
    assert f"needs {presence.what_lacks()}" in said


@pytest.mark.skipif(presence.what_lacks() is None, reason="there is a GPU here")
def test_a_missing_gpu_is_an_error_where_one_is_required(tmp_path: Path) -> None:
    said = run_pytest(tmp_path, REQUIRE_CUDA="1")
    assert "1 passed, 1 error" in said
    assert f"REQUIRE_CUDA=1, and this test needs {presence.what_lacks()}" in said
