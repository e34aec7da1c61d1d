# SPDX-License-Identifier: Apache-2.0
"""Secrets in settings: given by an environment variable or a file, and never shown.

    password: ${YARD_PASSWORD}
    password: {file: /run/secrets/yard}
    source: rtsp://viewer:${YARD_PASSWORD}@192.0.2.10/stream1

A literal is taken too, for trying things out.
"""

import os
import re
from pathlib import Path
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SHOWN = "***"


class Secret:
    """A text that shows itself only when asked to."""

    __slots__ = ("_text", "is_written")

    def __init__(self, text: str, *, is_written: bool = True) -> None:
        self._text = text
        self.is_written = is_written
        """Whether it stands in the settings themselves, where its user has put it."""

    def reveal(self) -> str:
        """Return the text; keep it out of logs, errors and arguments of processes."""
        return self._text

    def __repr__(self) -> str:
        return _SHOWN

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validate,
            serialization=core_schema.plain_serializer_function_ser_schema(str),
        )

    @classmethod
    def _validate(cls, value: Any) -> "Secret":
        match value:
            case Secret():
                return value
            case str():
                text = filled_in(value)
                return cls(text, is_written=text == value)
            case {"file": str(path)} if len(value) == 1:
                return cls(_read(Path(path)), is_written=False)
        raise PydanticCustomError(
            "secret", "expected a text, ${{VARIABLE}} or {{file: PATH}}, got another kind of value"
        )


def filled_in(text: str) -> str:
    """Return the text with `${NAME}` replaced by what the environment has.

    Raises:
        PydanticCustomError: a variable is not set.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in os.environ:
            raise PydanticCustomError(
                "secret", "the environment has no variable {name}", {"name": name}
            )
        return os.environ[name]

    return _VARIABLE.sub(value, text)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else "it is not UTF-8 text"
        raise PydanticCustomError(
            "secret", "{path}: cannot be read: {reason}", {"path": str(path), "reason": reason}
        ) from None
