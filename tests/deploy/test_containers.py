# SPDX-License-Identifier: Apache-2.0
"""The container files, as far as they can be looked at without a container engine.

Their steps are those of `install.sh`: the same script makes the installed version, and the user is
made in the same way.
"""

import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

import sightline
from pipeline.box.bundling import bundle
from pipeline.box.bundling.wheelhouse import Target
from tests.pipeline.scenes import make_card_file

DEPLOY = Path(__file__).parents[2] / "deploy"
CONTAINERS = DEPLOY / "containers"
TOKEN = "0123456789abcdef"

files = pytest.mark.parametrize("name", ["Dockerfile.cpu", "Dockerfile.cuda"])


def instructions(name: str) -> list[tuple[str, str]]:
    """What a file does: instruction and argument, each in one line."""
    lines = [line for line in (CONTAINERS / name).read_text().splitlines() if line[:1] != "#"]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    pairs = (line.partition(" ") for line in joined.splitlines() if line.strip())
    return [(word, argument.strip()) for word, _, argument in pairs]


def arguments(name: str, instruction: str) -> list[str]:
    return [argument for word, argument in instructions(name) if word == instruction]


@files
def test_what_is_copied_is_in_a_bundle(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def collect(_: Path, __: Target, wheels: Path) -> None:
        wheels.mkdir()
        (wheels / "sightline-1.0-py3-none-any.whl").touch()

    folder = tmp_path / "bundle"
    monkeypatch.setattr(bundle, "collect", collect)
    weights = make_card_file(tmp_path / "t.safetensors")
    target = Target(arch="x86_64", python="3.11", gpu=False)
    bundle.make_bundle(folder, bundle.Recipe(target=target, weights=weights))
    copied = [line.split() for line in arguments(name, "COPY") if not line.startswith("--from")]
    sources = [source for *several, _ in copied for source in several]
    assert "deploy/make_version.sh" in sources
    assert [source for source in sources if not (folder / source).exists()] == []


@files
def test_the_user_is_made_as_the_install_script_does_and_is_not_root(name: str) -> None:
    made = re.search(r"useradd ([^&;]*)", " ".join(arguments(name, "RUN")))
    installed = re.search(r"useradd ((?:.|\\\n)*?\"\$user\")", (DEPLOY / "install.sh").read_text())
    assert made is not None
    assert installed is not None
    wanted = installed[1].replace("\\\n", " ").replace('"$data"', "/var/lib/sightline")
    options = set(wanted.replace('"$user"', "sightline").split())
    assert options <= set(made[1].split())
    assert arguments(name, "USER") == [re.findall(r"--uid (\d+)", made[1])[0]]
    assert instructions(name)[-1][0] == "CMD"  # nothing is done as another user after it


@files
def test_no_package_list_and_no_wheel_stays(name: str) -> None:
    stages = arguments(name, "FROM")
    last = [word for word, _ in instructions(name)][::-1].index("FROM")
    final = instructions(name)[-last:]
    assert stages[-1] == "python"
    assert not [line for word, line in final if word == "COPY" and "wheels" in line]
    for line in arguments(name, "RUN"):
        assert ("apt-get install" in line) == ("rm -rf /var/lib/apt/lists/*" in line)


def test_the_one_for_gpus_differs_in_what_the_driver_is_told_alone() -> None:
    cpu, cuda = (instructions(name) for name in ("Dockerfile.cpu", "Dockerfile.cuda"))
    other = [line for line in cuda if line not in cpu]
    assert [word for word, _ in other] == ["ENV"]
    assert len(cpu) == len(cuda)
    assert "NVIDIA_VISIBLE_DEVICES=all" in other[0][1]


@contextmanager
def answering(status: int) -> Iterator[int]:
    """A port where those who have the token are answered so."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            knows = self.headers["Authorization"] == f"Bearer {TOKEN}"
            self.send_response(status if knows and self.path == "/healthz" else 401)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "token", "healthy"), [(200, TOKEN, True), (503, TOKEN, False), (200, "", False)]
)
def test_the_health_check_is_what_healthz_says(status: int, token: str, healthy: bool) -> None:
    (check,) = arguments("Dockerfile.cpu", "HEALTHCHECK")
    command = json.loads(check.partition("CMD ")[2])
    with answering(status) as port:
        command[-1] = command[-1].replace("8710", str(port))
        done = subprocess.run(
            command, env=os.environ | {"SIGHTLINE_TOKEN": token}, capture_output=True, check=False
        )
    assert (done.returncode == 0) == healthy


@files
@pytest.mark.skipif(shutil.which("hadolint") is None, reason="needs hadolint")
def test_hadolint_finds_no_fault(name: str) -> None:
    done = subprocess.run(
        ["hadolint", "--no-color", CONTAINERS / name], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.fixture
def services() -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load((CONTAINERS / "compose.yaml").read_text())["services"]
    return tree


def settings(name: str) -> Any:
    return yaml.safe_load((CONTAINERS / name).read_text())


def test_what_compose_mounts_and_builds_is_there(services: dict[str, Any]) -> None:
    mounts = [mount for service in services.values() for mount in service.get("volumes", ())]
    own = [mount.split(":")[0] for mount in mounts if mount.startswith("./")]
    assert sorted(own) == ["./cameras.yml", "./mosquitto.conf", "./prometheus.yml", "./serve.yaml"]
    assert [path for path in own if not (CONTAINERS / path).is_file()] == []
    dockerfile = services["sightline"]["build"]["dockerfile"].removeprefix("${PWD}/")
    assert (DEPLOY.parent / dockerfile).is_file()


def test_compose_publishes_to_this_machine_alone_and_leaves_time_to_end(
    services: dict[str, Any],
) -> None:
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert int(services["sightline"]["stop_grace_period"].removesuffix("s")) > 60
    assert services["sightline"]["read_only"]


def test_the_services_of_compose_find_each_other(services: dict[str, Any]) -> None:
    served = settings("serve.yaml")
    cameras = [urlsplit(entry["source"]) for entry in served["cameras"].values()]
    (path,) = settings("cameras.yml")["paths"]
    assert {camera.hostname for camera in cameras} <= services.keys()
    assert all(re.search(path.removeprefix("~"), camera.path[1:]) for camera in cameras)
    assert served["events"]["mqtt"]["host"] in services
    (job,) = settings("prometheus.yml")["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    assert target == f"sightline:{served['http']['listen'].rpartition(':')[2]}"


def test_the_settings_of_compose_pass_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SIGHTLINE_TOKEN", TOKEN)
    weights = make_card_file(tmp_path / "t.safetensors")
    assert settings("serve.yaml")["model"]["weights"].startswith("/opt/sightline/current/weights/")
    other = f"model.weights={weights}"
    code = sightline.main(["check", str(CONTAINERS / "serve.yaml"), "--set", other])
    assert code == 0, capsys.readouterr().err
