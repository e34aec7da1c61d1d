# SPDX-License-Identifier: Apache-2.0
"""Addresses and paths fit to be shown: one line of text, without credentials."""

import re

_CREDENTIALS = re.compile(r"(?<=://)(.*[?=].*@.*|.*@)", re.DOTALL)
_ARGUMENTS = re.compile(r"(://[^\s?='\"]*)[?=].*", re.DOTALL)


def redact(text: str) -> str:
    """The text without the user names, passwords and tokens of the addresses in it.

    Showing too little beats showing a password. An `@` in the path takes the host with it, what
    follows the first `?` or `=` is left out (cameras take `/user=a&password=b`), and where it is
    unclear whether these signs are part of the password, nothing is shown but the scheme. What
    cannot be printed, as a line's end or a name that is not UTF-8, becomes a question mark.
    """
    shown = _ARGUMENTS.sub(r"\1", _CREDENTIALS.sub("", text))
    return "".join(letter if letter.isprintable() else "?" for letter in shown)
