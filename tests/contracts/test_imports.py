"""What a fresh interpreter loads: a worker imports only what it uses."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "openvino", "supervision", "trackers", "cv2", "av", "zmq", "scipy")


SETTINGS = ("numpy", "pydantic", "yaml", "msgspec")


def loaded_by(statement: str, packages: tuple[str, ...] = HEAVY) -> set[str]:
    """Which of some packages a fresh interpreter has loaded after a statement."""
    program = (
        f"import sys\n{statement}\nprint(*[name for name in {packages} if name in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(found.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import pipeline", set()),
        ("import pipeline.stages.source", {"av", "zmq"}),
        ("import pipeline.stages.decode", {"av", "cv2", "zmq"}),
        ("import pipeline.stages.infer", {"zmq"}),
        ("import pipeline.stages.suppress", {"zmq"}),
        ("import pipeline.stages.write", {"av", "cv2", "zmq"}),
        ("import pipeline.rules.engine", set()),
        ("import sightline\nsightline.main(['--help'])", set()),
        ("from model import load", set()),
    ],
)
def test_a_part_loads_only_what_it_uses(statement: str, allowed: set[str]) -> None:
    assert loaded_by(statement) <= allowed


def test_the_command_needs_no_torch_before_an_engine_is_built() -> None:
    assert "torch" not in loaded_by("import pipeline.cli")


def test_help_loads_the_command_line_and_nothing_else() -> None:
    """It is there within 0.3 s; `tests/benchmarks/bench_start.py` measures it."""
    statement = "import sightline\nsightline.main(['--help'])"
    packages = (*HEAVY, *SETTINGS, "model", "pipeline", "cyclopts")
    assert loaded_by(statement, packages) == {"cyclopts"}
