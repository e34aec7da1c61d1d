# SPDX-License-Identifier: Apache-2.0
"""The secrets in settings, which no line of the log may hold."""

from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel

from pipeline.secret import Secret
from pipeline.serve.config import CameraEntry


def secrets_of(config: BaseModel) -> Iterator[str]:
    """Give every secret in settings; of a camera's address its password, as the rest is shown."""
    for name, value in dict(config).items():
        if name == "source" and isinstance(config, CameraEntry):
            yield from _passwords(value.reveal())
        else:
            yield from _secrets_in(value)


def _secrets_in(value: object) -> Iterator[str]:
    match value:
        case Secret():
            yield value.reveal()
        case BaseModel():
            yield from secrets_of(value)
        case dict():
            yield from _secrets_in(tuple(value.values()))
        case tuple() | list():
            for each in value:
                yield from _secrets_in(each)


def _passwords(address: str) -> Iterator[str]:
    """The password of an address, as written and as meant; a pipeline may hold one anywhere."""
    if address.startswith("gst:"):
        yield address
        return
    try:
        password = urlsplit(address).password
    except ValueError:
        yield address
        return
    if password:
        yield password
        yield unquote(password)
