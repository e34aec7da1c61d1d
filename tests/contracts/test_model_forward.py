# SPDX-License-Identifier: Apache-2.0
"""A network computes one thing: how it trains and what it becomes for export is decided outside."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

MODEL = Path(__file__).parents[2] / "model"
CHOICES = (ast.If, ast.IfExp, ast.Match, ast.While)
ASKING = {"training", "hasattr", "isinstance", "is_grad_enabled", "is_inference_mode_enabled"}


def faults(source: str) -> Iterator[str]:
    """What in the `forward` methods of a file may make them compute now this, now that."""
    for forward in ast.walk(ast.parse(source)):
        if not isinstance(forward, ast.FunctionDef) or forward.name != "forward":
            continue
        for part in ast.walk(forward):
            if isinstance(part, CHOICES):
                yield f"line {part.lineno}: a choice"
            elif isinstance(part, ast.Attribute | ast.Name) and _word(part) in ASKING:
                yield f"line {part.lineno}: asks {_word(part)}"
            elif isinstance(part, ast.Name) and part.id in ("bool", "str"):
                yield f"line {part.lineno}: a mode"


def _word(part: ast.Attribute | ast.Name) -> str:
    return part.attr if isinstance(part, ast.Attribute) else part.id


@pytest.mark.parametrize("path", sorted(MODEL.rglob("*.py")), ids=lambda path: path.name)
def test_no_forward_has_modes(path: Path) -> None:
    assert list(faults(path.read_text())) == []


@pytest.mark.parametrize(
    "body",
    [
        "if self.training:\n            return x\n        return -x",
        "return x if self.export else -x",
        "return x * self.training",
        "return x * hasattr(self, 'fused')",
    ],
)
def test_a_mode_would_be_found(body: str) -> None:
    assert list(faults(f"class Part:\n    def forward(self, x):\n        {body}\n"))


def test_a_flag_would_be_found() -> None:
    assert list(faults("class Part:\n    def forward(self, x, deploy: bool): ...\n"))
