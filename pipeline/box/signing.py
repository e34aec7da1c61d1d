# SPDX-License-Identifier: Apache-2.0
"""Who made a bundle: ed25519 signatures over the bytes of its manifest.

The manifest has the digest of every file, so that one signature covers the bundle. `NAME.key` is
the secret key (PEM, PKCS 8), `NAME.pub` the public one (PEM); a box trusts those in its folder of
trusted keys.
"""

import os
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from model.errors import ConfigError
from pipeline.box.files import replace_file
from pipeline.box.manifest import MANIFEST, SIGNATURE, read_manifest_bytes
from pipeline.errors import BundleRefused
from pipeline.keyfiles import PUBLIC_SUFFIX, check_kept, reason, write_pair

_SIGNATURE_BYTES: Final = 64
_MAKE_ONE: Final = "make one with: sightline bundle-key NAME"


def make_pair(name: str, folder: Path) -> tuple[Path, Path]:
    """Write a new pair as `NAME.key` and `NAME.pub`; nothing is replaced.

    Raises:
        ConfigError: the name or the folder will not do, or one of the files exists.
    """
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return write_pair(name, folder, secret=secret, public=public)


def sign_bundle(bundle: Path, secret: Path) -> Path:
    """Write the signature of a bundle's manifest beside it.

    Raises:
        ConfigError: the key cannot be read, is none, or others may read it.
        BundleRefused: there is no manifest.
    """
    path = bundle / SIGNATURE
    replace_file(path, _read_secret(secret).sign(read_manifest_bytes(bundle)))
    return path


def verify_signature(bundle: Path, manifest: bytes, trusted: Path) -> str:
    """The name of the trusted key that signed these bytes of a bundle's manifest.

    Raises:
        BundleRefused: none did.
        ConfigError: a trusted key cannot be read.
    """
    path = bundle / SIGNATURE
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            signature = file.read(_SIGNATURE_BYTES + 1)
    except OSError:
        raise BundleRefused(
            f"{bundle}: not signed; sign it where it was made, or say --unsigned to trust it as "
            "it is"
        ) from None
    keys = {file.stem: _read_public(file) for file in sorted(trusted.glob(f"*{PUBLIC_SUFFIX}"))}
    if not keys:
        raise BundleRefused(f"{trusted}: holds no NAME{PUBLIC_SUFFIX}; copy the maker's key there")
    for name, key in keys.items():
        try:
            key.verify(signature, manifest)
        except InvalidSignature:
            continue
        return name
    raise BundleRefused(
        f"{path}: no signature of {bundle / MANIFEST} by {', '.join(keys)}; the bundle was changed "
        f"after it was signed, or its maker's key is not in {trusted}"
    )


def _read_secret(path: Path) -> Ed25519PrivateKey:
    try:
        content = path.read_bytes()
        check_kept(path)
    except OSError as failure:
        raise ConfigError(
            f"{path}: cannot read this key ({reason(failure)}); {_MAKE_ONE}"
        ) from None
    try:
        key = serialization.load_pem_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path}: no secret ed25519 key in PEM; {_MAKE_ONE}")
    return key


def _read_public(path: Path) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except OSError as failure:
        raise ConfigError(f"{path}: cannot read this key ({reason(failure)})") from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{path}: no public ed25519 key in PEM; it is the NAME.pub of a pair")
    return key
