# SPDX-License-Identifier: Apache-2.0
"""What a bundle says it holds, and whether it does."""

import os
from pathlib import Path
from tempfile import mkdtemp

import msgspec
import pytest

from pipeline.box.manifest import (
    Manifest,
    describe_files,
    read_manifest,
    take_files,
    write_manifest,
)
from pipeline.errors import BundleRefused


def make_bundle(folder: Path) -> Manifest:
    """A sound bundle of two files."""
    (folder / "wheels").mkdir(parents=True)
    (folder / "wheels/a.whl").write_bytes(b"wheel")
    (folder / "install.sh").write_bytes(b"#!/bin/sh\n")
    manifest = Manifest(
        version="1.2.3",
        arch="x86_64",
        python="3.11",
        created="2026-01-01T00:00:00Z",
        files=describe_files(folder),
    )
    write_manifest(folder, manifest)
    return manifest


def refusal(folder: Path) -> str:
    with pytest.raises(BundleRefused) as refused:
        take_files(folder, read_manifest(folder), Path(mkdtemp(dir=folder.parent)))
    text = str(refused.value)
    assert "\n" not in text
    return text


def test_a_sound_bundle_is_read_as_it_was_written_and_verified(tmp_path: Path) -> None:
    manifest = make_bundle(tmp_path)
    assert read_manifest(tmp_path) == manifest
    assert set(manifest.files) == {"wheels/a.whl", "install.sh"}
    (taken := tmp_path.with_name("taken")).mkdir()
    take_files(tmp_path, manifest, taken)
    assert {
        str(path.relative_to(taken)): path.read_bytes()
        for path in taken.rglob("*") if path.is_file()
    } == {"wheels/a.whl": b"wheel", "install.sh": b"#!/bin/sh\n"}  # fmt: skip


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    make_bundle(tmp_path)
    (tmp_path / "wheels/a.whl").write_bytes(b"whee1")
    assert "a.whl: not what the manifest lists" in refusal(tmp_path)


def test_a_cut_file_is_named_with_both_sizes(tmp_path: Path) -> None:
    make_bundle(tmp_path)
    (tmp_path / "wheels/a.whl").write_bytes(b"whe")
    assert "3 bytes, and the manifest says 5" in refusal(tmp_path)


def test_a_file_that_grew_is_read_no_further_than_the_manifest_says(tmp_path: Path) -> None:
    make_bundle(tmp_path)
    (tmp_path / "wheels/a.whl").write_bytes(b"wheels")
    assert "more bytes, and the manifest says 5" in refusal(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    make_bundle(tmp_path)
    (tmp_path / "install.sh").unlink()
    assert "install.sh: missing" in refusal(tmp_path)


def test_a_file_that_is_not_listed_is_refused(tmp_path: Path) -> None:
    make_bundle(tmp_path)
    (tmp_path / "wheels/evil.whl").write_bytes(b"")
    assert "evil.whl: the manifest does not list it" in refusal(tmp_path)


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    make_bundle(tmp_path)
    (tmp_path / "install.sh").unlink()
    (tmp_path / "install.sh").symlink_to("/etc/passwd")
    assert "install.sh: a link" in refusal(tmp_path)
    (tmp_path / "install.sh").unlink()
    os.mkfifo(tmp_path / "install.sh")
    assert "install.sh: no plain file" in refusal(tmp_path)


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle")
    (tmp_path / "bundle/wheels").rename(tmp_path / "wheels")
    (tmp_path / "bundle/wheels").symlink_to(tmp_path / "wheels")
    assert "wheels: a link" in refusal(tmp_path / "bundle")


@pytest.mark.parametrize(
    "path", ["../outside", "/etc/passwd", "a/../../b", "", ".", "a//b", "a\\b", "a\nb"]
)
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    manifest = make_bundle(tmp_path)
    entry = manifest.files["install.sh"]
    write_manifest(tmp_path, msgspec.structs.replace(manifest, files={path: entry}))
    assert "cannot be a file of it" in refusal(tmp_path)


@pytest.mark.parametrize("version", ["", "..", "a/b", "current", ".1", "1\n"])
def test_a_version_that_cannot_name_a_folder_is_refused(tmp_path: Path, version: str) -> None:
    manifest = make_bundle(tmp_path)
    write_manifest(tmp_path, msgspec.structs.replace(manifest, version=version))
    assert "cannot name a folder" in refusal(tmp_path)


def test_a_manifest_of_a_later_format_is_refused(tmp_path: Path) -> None:
    manifest = make_bundle(tmp_path)
    write_manifest(tmp_path, msgspec.structs.replace(manifest, format=2))
    assert "format 2, and this version reads 1" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b'{"format": 1}'])
def test_what_is_no_manifest_is_refused_in_a_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    assert "not a manifest" in refusal(tmp_path)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    assert "manifest.json: cannot be read" in refusal(tmp_path)
