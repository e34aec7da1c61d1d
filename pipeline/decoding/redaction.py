# SPDX-License-Identifier: Apache-2.0
"""Addresses fit to be shown: without credentials and without query strings."""

import re

_CREDENTIALS = re.compile(r"(?<=://)\S*@")
_QUERY = re.compile(r"(://[^\s?'\"]*)\?[^\s'\"]*")


def redact(text: str) -> str:
    """The text without the user names, passwords and tokens of the addresses in it.

    An `@` in the path takes the host with it: showing too little beats showing a password.
    """
    return _QUERY.sub(r"\1", _CREDENTIALS.sub("", text))
