# SPDX-License-Identifier: Apache-2.0
"""Who made a bundle."""

import stat
from pathlib import Path

import pytest

import sightline
from model.errors import ConfigError
from pipeline.box.manifest import read_manifest_bytes
from pipeline.box.signing import make_pair, sign_bundle, verify_signature
from pipeline.errors import BundleRefused


def signed(folder: Path) -> tuple[Path, Path]:
    """A signed bundle and the folder of keys that a box trusts."""
    bundle, trusted = folder / "bundle", folder / "trusted"
    bundle.mkdir()
    trusted.mkdir()
    (bundle / "manifest.json").write_bytes(b'{"format": 1}')
    secret, public = make_pair("maker", folder)
    sign_bundle(bundle, secret)
    public.rename(trusted / public.name)
    return bundle, trusted


def test_a_signature_by_a_trusted_key_names_it(tmp_path: Path) -> None:
    bundle, trusted = signed(tmp_path)
    make_pair("another", trusted)
    assert verify_signature(bundle, read_manifest_bytes(bundle), trusted) == "maker"


def test_a_manifest_changed_after_signing_is_refused(tmp_path: Path) -> None:
    bundle, trusted = signed(tmp_path)
    with pytest.raises(BundleRefused, match=r"no signature of .* by maker"):
        verify_signature(bundle, b'{"format": 2}', trusted)


def test_a_signature_by_another_key_is_refused(tmp_path: Path) -> None:
    bundle, trusted = signed(tmp_path)
    (trusted / "maker.pub").unlink()
    make_pair("another", trusted)
    with pytest.raises(BundleRefused, match="by another"):
        verify_signature(bundle, read_manifest_bytes(bundle), trusted)


def test_a_bundle_without_a_signature_is_refused_with_the_way_out(tmp_path: Path) -> None:
    bundle, trusted = signed(tmp_path)
    (bundle / "manifest.sig").unlink()
    with pytest.raises(BundleRefused, match=r"not signed.*--unsigned"):
        verify_signature(bundle, read_manifest_bytes(bundle), trusted)


def test_a_box_that_trusts_nobody_refuses(tmp_path: Path) -> None:
    bundle, trusted = signed(tmp_path)
    (trusted / "maker.pub").unlink()
    with pytest.raises(BundleRefused, match=r"holds no NAME.pub"):
        verify_signature(bundle, read_manifest_bytes(bundle), trusted)


def test_a_secret_key_is_for_its_owner_alone_and_never_replaced(tmp_path: Path) -> None:
    secret, _ = make_pair("maker", tmp_path)
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    with pytest.raises(ConfigError, match="never replaced"):
        make_pair("maker", tmp_path)
    secret.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        sign_bundle(tmp_path, secret)


def test_a_key_of_hosts_signs_no_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sightline.main(["keys", "host", "-o", str(tmp_path)]) == 0
    with pytest.raises(ConfigError, match="no secret ed25519 key"):
        sign_bundle(tmp_path, tmp_path / "host.key")
    assert sightline.main(["bundle-key", "maker", "-o", str(tmp_path)]) == 0
    assert "maker.key: the secret key" in capsys.readouterr().out
