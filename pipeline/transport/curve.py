# SPDX-License-Identifier: Apache-2.0
"""Keys of hosts: how they are made, kept and read, and who is let in.

Between hosts everything is encrypted with CURVE: each side has a pair of keys and knows the public
one of the other beforehand. A key is 64 hexadecimal digits in a file of its own.
"""

import logging
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

from model.errors import ConfigError
from pipeline.keyfiles import PUBLIC_SUFFIX, check_kept, reason, write_pair

logger = logging.getLogger(__name__)

DOMAIN = b"sightline"
_LINE = re.compile(r"(public|secret): ([0-9a-f]{64})")
_TELL_AGAIN_S = 10.0
_MOST_TOLD = 256
_MOST_AT_ONCE = 16
_ZAP_PARTS = 7

_PUBLIC_TEXT = """\
# Sightline: the public key of {name}. It is no secret: copy this file to whoever is to know {name},
# for a worker into its --allow folder, for a client as remote.server_key, for a collector into its
# folder of boxes, for a box as events.fleet.collector_key.
public: {public}
"""
_SECRET_TEXT = """\
# Sightline: the secret key of {name}. Whoever has this file is {name}: keep it where it is.
public: {public}
secret: {secret}
"""


@dataclass(frozen=True, slots=True)
class Keys:
    """A pair; the secret one shows nowhere."""

    public: bytes
    secret: bytes = field(repr=False)


def make_keys(name: str, folder: Path) -> tuple[Path, Path]:
    """Write a new pair as `NAME.key` and `NAME.pub`; nothing is replaced.

    Raises:
        ConfigError: the name or the folder will not do, or one of the files exists.
    """
    public, secret = (z85.decode(key).hex() for key in zmq.curve_keypair())
    fields = {"name": name, "public": public}
    return write_pair(
        name,
        folder,
        secret=_SECRET_TEXT.format(**fields, secret=secret).encode(),
        public=_PUBLIC_TEXT.format(**fields).encode(),
    )


def read_keys(path: Path) -> Keys:
    """The pair in a `.key` file.

    Raises:
        ConfigError: it cannot be read, is none, or others may read it.
    """
    found = _read(path)
    if "secret" not in found:
        raise ConfigError(f"{path}: holds no secret key; make one with: sightline keys NAME")
    check_kept(path)
    secret = bytes.fromhex(found["secret"])
    public = z85.decode(zmq.curve_public(z85.encode(secret)))
    return Keys(public, secret)


def read_public(path: Path) -> bytes:
    """The key in a `.pub` file.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    found = _read(path)
    if "public" not in found:
        raise ConfigError(
            f"{path}: holds no public key; it is the NAME.pub of: sightline keys NAME"
        )
    return bytes.fromhex(found["public"])


def read_allowed(path: Path) -> dict[bytes, str]:
    """The public keys in a `.pub` file, or in those of a folder, with the names of their files.

    Raises:
        ConfigError: one of them cannot be read.
    """
    return {read_public(file): file.stem for file in _public_files(path)}


def secure(socket: zmq.Socket[bytes], keys: Keys, server: bytes | None = None) -> None:
    """Encrypt a socket: as the client of a server's key, or as the server of its domain."""
    socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public)
    socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret)
    if server is None:
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
    else:
        socket.setsockopt(zmq.CURVE_SERVERKEY, server)


def watch_over(socket: zmq.Socket[bytes], silence_s: float) -> None:
    """Have a connection end that is silent, in its handshake or later."""
    silence_ms = round(silence_s * 1000)
    socket.setsockopt(zmq.HANDSHAKE_IVL, silence_ms)
    socket.setsockopt(zmq.HEARTBEAT_IVL, silence_ms // 3)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, silence_ms)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)  # for routers between, which forget idle connections
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 30)


class Doorkeeper:
    """Answers ZeroMQ's question for every handshake of a context: may this key come in?

    The files are read each time, so that a key copied into the folder, or taken away, counts for
    the next connection.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], allowed: Path) -> None:
        self.socket = context.socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind("inproc://zeromq.zap.01")  # the address is ZeroMQ's (RFC 27)
        self._allowed = allowed
        self._told: dict[str, float] = {}

    def answer(self) -> None:
        """Answer questions that wait; a key let in is the user of its connection.

        Not all of them: who knocks without end must not keep the others from being served.
        """
        for _ in range(_MOST_AT_ONCE):
            if not self.socket.poll(0):
                return
            parts = self.socket.recv_multipart()
            if len(parts) < _ZAP_PARTS:
                self.socket.send_multipart((b"1.0", b"", b"500", b"", b"", b""))
                continue
            version, request, domain, address, _, mechanism, key = parts[:_ZAP_PARTS]
            right = (domain, mechanism) == (DOMAIN, b"CURVE")
            name = self._name_of(key) if right else None
            if name is None:
                whence, refused = address.decode(errors="replace"), key.hex()
                text = f"{whence}: refused the key {refused}: it is not in {self._allowed}"
                self._tell(refused, text)
                self.socket.send_multipart((version, request, b"400", b"unknown key", b"", b""))
            else:
                user = f"{name} {key.hex()}".encode()[-255:]
                self.socket.send_multipart((version, request, b"200", b"", user, b""))

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def _name_of(self, key: bytes) -> str | None:
        for file in _public_files(self._allowed):
            try:
                if read_public(file) == key:
                    return file.stem
            except ConfigError as error:  # one that is being written, or spoilt, bars no other
                self._tell(str(file), str(error))
        return None

    def _tell(self, about: str, text: str) -> None:
        """Log something, but not as often as someone knocks."""
        now_s = time.monotonic()
        if now_s < self._told.get(about, 0.0) + _TELL_AGAIN_S:
            return
        if len(self._told) >= _MOST_TOLD:
            self._told.clear()
        self._told[about] = now_s
        logger.warning("%s", text)


def _public_files(path: Path) -> list[Path]:
    return sorted(path.glob(f"*{PUBLIC_SUFFIX}")) if path.is_dir() else [path]


def _read(path: Path) -> dict[str, str]:
    """The keys in a file by their kind."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise ConfigError(f"{path}: cannot read this key ({reason(error)})") from None
    except UnicodeDecodeError:
        lines = []
    matches = (_LINE.fullmatch(line.strip()) for line in lines)
    return {match[1]: match[2] for match in matches if match}
