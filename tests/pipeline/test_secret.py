# SPDX-License-Identifier: Apache-2.0
import pytest
from pydantic import ValidationError

from model.config import Settings
from pipeline.secret import Secret

PASSWORD = "hunter-2-hunter"


class Holder(Settings):
    password: Secret


def test_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("YARD", PASSWORD)
    held = Holder.model_validate({"password": "a-${YARD}"})
    assert held.password.reveal() == f"a-{PASSWORD}"


def test_comes_from_a_file_without_its_line_end(tmp_path):
    (tmp_path / "word").write_text(PASSWORD + "\n")
    held = Holder.model_validate({"password": {"file": str(tmp_path / "word")}})
    assert held.password.reveal() == PASSWORD


def test_shows_itself_nowhere():
    held = Holder(password=Secret(PASSWORD))
    shown = f"{held!r} {held} {held.model_dump()} {held.model_dump_json()} {held.password!r:>5}"
    assert PASSWORD not in shown


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("${NOT_SET_ANYWHERE}", "no variable NOT_SET_ANYWHERE"),
        ({"file": "/no/such/file"}, "/no/such/file: cannot be read: No such file"),
        (7, "expected a text"),
        ({"path": "x"}, "expected a text"),
    ],
)
def test_what_cannot_be_had_is_said(value, says):
    with pytest.raises(ValidationError, match=says.replace("$", r"\$")):
        Holder.model_validate({"password": value})
