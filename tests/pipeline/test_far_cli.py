"""`sightline worker` and `sightline keys` as their user meets them."""

from pathlib import Path

import pytest

import sightline
from tests.pipeline.far_side import FarThread, KeyRing
from tests.pipeline.scenes import build_squares, make_card_file, make_scene


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = sightline.main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_keys_are_made_once_and_no_secret_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, "keys", "yard", "--output", tmp_path)
    assert (code, err) == (0, "")
    secret = (tmp_path / "yard.key").read_text().split("secret: ")[1].strip()
    assert secret not in out
    assert out.splitlines() == [
        f"{tmp_path}/yard.key: the secret key, which stays on this host",
        f"{tmp_path}/yard.pub: the public key, to be copied to the other side",
    ]
    code, out, err = call(capsys, "keys", "yard", "--output", tmp_path)
    assert (code, out) == (2, "")
    assert err == (
        f"sightline: {tmp_path}/yard.key: exists, and a key is never replaced; choose another "
        "name\n"
    )


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"--listen": "tcp://*:5570"}, "listen: expected tcp://HOST:PORT, got tcp://*:5570"),
        ({"--key": "/none.key"}, "/none.key: cannot read this key (no such file or directory)"),
        ({"--allow": "/none"}, "/none: cannot read this key (no such file or directory)"),
        ({"--model": "/none"}, "/none: cannot read these weights"),
        ({"--set": "credits=0"}, "credits: input should be greater than or equal to 1"),
    ],
)
def test_a_fault_in_the_call_of_a_worker_is_one_line(
    change: dict[str, str], fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ring = KeyRing.make(tmp_path / "keys")
    usual = {
        "--listen": "tcp://127.0.0.1:0",
        "--key": ring.folder / "worker.key",
        "--allow": ring.allow,
        "--model": make_card_file(tmp_path / "card.safetensors"),
    }
    arguments = [part for pair in {**usual, **change}.items() for part in pair]
    code, out, err = call(capsys, "worker", *arguments)
    assert (code, out) == (2, "")
    assert fault in err
    assert len(err.splitlines()) == 1


def test_a_worker_has_no_address_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "worker")
    assert code == 2
    for name in ("listen", "key", "allow"):
        assert f"{name}: field required" in err


def test_a_run_is_told_where_the_other_host_is_by_its_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ring = KeyRing.make(tmp_path / "keys", "yard")
    weights = make_card_file(tmp_path / "card.safetensors")
    clip = make_scene(tmp_path / "walk.mp4")
    settings = tmp_path / "remote.yaml"
    with FarThread(ring.worker(weights), build_squares) as far:
        settings.write_text(
            f"remote:\n  address: {far.address}\n  server_key: {ring.folder}/worker.pub\n"
            f"  key: {ring.folder}/yard.key\nmodel:\n  image_size: 160\n"
        )
        code, out, err = call(
            capsys, "run", clip, "--config", settings, "--model", weights, "-o", tmp_path / "out"
        )
    assert (code, err) == (0, "")
    assert "walk: 30 frames, 30 tracked, 0 dropped" in out


def test_a_run_whose_key_is_refused_ends_with_1_and_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ring = KeyRing.make(tmp_path / "keys", "yard")
    weights = make_card_file(tmp_path / "card.safetensors")
    clip = make_scene(tmp_path / "walk.mp4")
    with FarThread(ring.worker(weights), build_squares) as far:
        (ring.allow / "yard.pub").unlink()
        code, _, err = call(
            capsys,
            *("run", clip, "--model", weights, "-o", tmp_path / "out", "--quiet"),
            *("--set", f"remote.address={far.address}"),
            *("--set", f"remote.server_key={ring.folder}/worker.pub"),
            *("--set", f"remote.key={ring.folder}/yard.key"),
        )
    assert code == 1
    told = [line for line in err.splitlines() if "refused our key" in line]
    assert len(told) == 1
    assert told[0].endswith("copy yard.pub into the worker's --allow folder")
    assert "Traceback" not in err
