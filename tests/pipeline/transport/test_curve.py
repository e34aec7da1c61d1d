"""Key files: who may read them, and what is said of those that will not do."""

import re
from pathlib import Path

import pytest
import zmq
from zmq.utils import z85

from model.errors import ConfigError
from pipeline.transport.curve import make_keys, read_allowed, read_keys, read_public


def test_a_secret_key_is_its_owners_alone(tmp_path: Path) -> None:
    secret, public = make_keys("yard-1", tmp_path / "new/folder")
    assert secret.name == "yard-1.key"
    assert public.name == "yard-1.pub"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert read_keys(secret).secret.hex() not in public.read_text()


def test_a_pair_fits_together_and_no_two_are_alike(tmp_path: Path) -> None:
    pairs = []
    for name in ("a", "b"):
        secret, public = make_keys(name, tmp_path)
        keys = read_keys(secret)
        assert keys.public == read_public(public)
        assert z85.decode(zmq.curve_public(z85.encode(keys.secret))) == keys.public
        pairs.append(keys)
    assert pairs[0] != pairs[1]


def test_files_say_what_they_are(tmp_path: Path) -> None:
    for path in make_keys("a", tmp_path):
        assert path.read_text().startswith("# Sightline: the ")


@pytest.mark.parametrize("suffix", [".key", ".pub"])
def test_a_key_is_never_replaced(suffix: str, tmp_path: Path) -> None:
    existing = tmp_path / f"a{suffix}"
    existing.write_text("mine")
    with pytest.raises(ConfigError, match=f"{re.escape(str(existing))}: exists"):
        make_keys("a", tmp_path)
    assert existing.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == [existing.name]


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".a", "a b", "a\n"])
def test_a_name_is_no_path(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a key is named with"):
        make_keys(name, tmp_path)


def test_a_secret_key_that_others_may_read_is_refused_with_the_way_out(tmp_path: Path) -> None:
    secret, _ = make_keys("a", tmp_path)
    secret.chmod(0o640)
    with pytest.raises(ConfigError, match=r"mode 0640 lets others read .* chmod 600 "):
        read_keys(secret)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (None, "cannot read this key .no such file"),
        (b"", "holds no"),
        (b"\xff\xfe", "holds no"),
        (b"public: 12\nsecret: 12\n", "holds no"),
    ],
)
def test_what_is_no_key_is_told_in_one_line(text: bytes | None, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    if text is not None:
        path.write_bytes(text)
        path.chmod(0o600)
    for read in (read_keys, read_public):
        with pytest.raises(ConfigError, match=fault) as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_a_public_key_is_no_secret_one(tmp_path: Path) -> None:
    _, public = make_keys("a", tmp_path)
    with pytest.raises(ConfigError, match="holds no secret key; make one with: sightline keys"):
        read_keys(public)


def test_those_in_a_folder_are_allowed_by_the_names_of_their_files(tmp_path: Path) -> None:
    publics = [make_keys(name, tmp_path)[1] for name in ("a", "b")]
    names = {read_public(path): path.stem for path in publics}
    assert read_allowed(tmp_path) == names
    assert read_allowed(publics[0]) == {read_public(publics[0]): "a"}


def test_an_allowed_file_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read this key"):
        read_allowed(tmp_path / "none")
