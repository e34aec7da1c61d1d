# SPDX-License-Identifier: Apache-2.0
"""`sightline init`: what a camera is found to be, and settings without its password."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import sightline
from pipeline.cameras import CameraConfig
from pipeline.decoding.media import RawPacket
from pipeline.errors import SourceUnreadable
from pipeline.probe import frame_rate, longest_to_keyframe, without_secrets
from tests.pipeline.cameras import make_film
from tests.pipeline.http_camera import HttpCamera, jpegs_of
from tests.pipeline.small_camera import SmallCamera

PASSWORD = "se%cret"
WRITTEN = "se%25cret"


@pytest.fixture(autouse=True)
def _short_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.probe._LOOK_S", 0.9)


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[SmallCamera]:
    small = SmallCamera(make_film(tmp_path / "film.mp4"))
    small.on()
    yield small
    small.off()


def test_a_camera_is_described_and_its_settings_name_a_variable_for_the_password(
    camera: SmallCamera, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sightline.main(["init", camera.address(), "--name", "yard"]) == 0
    said = capsys.readouterr().out
    assert "# h264, 320 x 192, 25.0 frames/s, a keyframe each 0.4 s, over tcp; decoded by pyav" in (
        said
    )
    assert "# set YARD_PASSWORD to what the address has in its place" in said
    settings = yaml.safe_load(said)["cameras"]["yard"]
    source = settings.pop("source")
    assert source == f"rtsp://bob:${{YARD_PASSWORD}}@127.0.0.1:{camera.port}/live"
    assert CameraConfig.model_validate(settings).transport == "tcp"
    assert PASSWORD not in said
    assert WRITTEN not in said


def test_settings_are_written_to_a_new_file_alone_and_work_as_an_address(
    camera: SmallCamera,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("YARD_PASSWORD", WRITTEN)
    path = tmp_path / "yard.yaml"
    address = camera.address("bob:${YARD_PASSWORD}")
    call = ["init", address, "--name", "yard", "--output", str(path)]
    assert sightline.main(call) == 0
    assert yaml.safe_load(path.read_text())["cameras"]["yard"]["source"] == address
    assert sightline.main(call) == 2
    assert "exists; name another file" in capsys.readouterr().err


def test_an_http_camera_is_probed_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with HttpCamera(jpegs_of(make_film(tmp_path / "film.avi", "mjpeg"))) as camera:
        assert sightline.main(["init", camera.address(), "--name", "7"]) == 0
        said = capsys.readouterr().out
    assert "# mjpeg, 320 x 192, " in said
    assert "${CAMERA_7_PASSWORD}@127.0.0.1" in said
    assert WRITTEN not in said


@pytest.mark.parametrize("credentials", ["bob:hunter2", "hunter2"])
def test_a_camera_that_refuses_is_an_error_of_one_line_without_the_password(
    camera: SmallCamera, capsys: pytest.CaptureFixture[str], credentials: str
) -> None:
    assert sightline.main(["init", camera.address(credentials)]) == 2
    said = capsys.readouterr().err
    assert "wrong user name or password" in said
    assert said.count("\n") == 1
    assert "hunter2" not in said


def test_what_is_no_camera_and_a_variable_that_is_not_set_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sightline.main(["init", str(make_film(tmp_path / "film.mp4"))]) == 2
    assert "is no camera that can be probed" in capsys.readouterr().err
    assert sightline.main(["init", "rtsp://bob:${NOT_SET_ANYWHERE}@127.0.0.1/live"]) == 2
    assert "the environment has no variable NOT_SET_ANYWHERE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("named", "shown"),
    [
        ("rtsp://host/live", "rtsp://host/live"),
        ("rtsp://bob:s3cret@host/live?channel=1&subtype=0",
         "rtsp://bob:${A_PASSWORD}@host/live?channel=1&subtype=0"),
        ("rtsp://s3cret@host/live", "rtsp://${A_PASSWORD}@host/live"),
        ("rtsp://bob:@host/live", "rtsp://bob:@host/live"),
        ("http://host/v.cgi?user=bob&pwd=s3cret", "http://host/v.cgi?user=${A_USER}&pwd=${A_PWD}"),
        ("rtsp://host/user=bob&password=s3/cret?x&channel=2",
         "rtsp://host/user=${A_USER}&password=${A_PASSWORD}&channel=2"),
        ("rtsp://bob:${OWN}@host/live?token=s3cret", "rtsp://bob:${OWN}@host/live?token=${A_TOKEN}"),
    ],
)  # fmt: skip
def test_whatever_may_be_secret_in_an_address_becomes_a_variable(named: str, shown: str) -> None:
    address, variables = without_secrets(named, "a")
    assert address == shown
    assert all(f"${{{name}}}" in shown for name in variables)


@pytest.mark.parametrize(
    "named",
    ["rtsp://bob:s3/cret@host/live", "rtsp://bob:s3@cret@host/live", "rtsp://b:s3?cret@h/l"],
)
def test_where_the_password_cannot_be_told_from_the_rest_nothing_is_shown(named: str) -> None:
    with pytest.raises(SourceUnreadable, match="cannot tell the password") as caught:
        without_secrets(named, "a")
    assert "cret" not in str(caught.value)


def test_the_rate_of_a_camera_whose_clock_stands_still_is_that_of_arrival() -> None:
    """What had waited while the camera was opened comes at once, and says nothing of it."""
    arrival_ms = [0] * 100 + [40 * number for number in range(100)]
    packets = [
        RawPacket(
            data=b"",
            pts_ns=0 if number else None,
            dts_ns=None,
            keyframe=number % 50 == 0,
            hidden=False,
            corrupt=False,
            captured_ns=at_ms * 1_000_000,
        )
        for number, at_ms in enumerate(arrival_ms)
    ]
    assert frame_rate(packets) == pytest.approx(25.0)
    assert longest_to_keyframe(packets) == 50
