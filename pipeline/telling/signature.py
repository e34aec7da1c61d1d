# SPDX-License-Identifier: Apache-2.0
"""Signatures of webhooks: `t=SECONDS,v1=HEX`, an HMAC-SHA256 over `SECONDS.BODY`."""

import hashlib
import hmac
import re
from typing import Final

HEADER: Final = "X-Sightline-Signature"
WINDOW_S: Final = 300.0
"""How old a request may be: one that was overheard and is sent again later is refused."""
_SHAPE = re.compile(r"t=(\d{1,12}),v1=([0-9a-f]{64})")


def sign(secret: str, body: bytes, at_s: float) -> str:
    """The header's value for a body that is sent at a time."""
    return f"t={int(at_s)},v1={_digest(secret, str(int(at_s)), body)}"


def verify(secret: str, body: bytes, header: str, now_s: float) -> bool:
    """Whether a request comes from who has the secret, and from now."""
    match = _SHAPE.fullmatch(header)
    if match is None or abs(now_s - int(match[1])) > WINDOW_S:
        return False
    return hmac.compare_digest(match[2], _digest(secret, match[1], body))


def _digest(secret: str, at: str, body: bytes) -> str:
    return hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
