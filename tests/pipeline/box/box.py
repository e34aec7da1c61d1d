# SPDX-License-Identifier: Apache-2.0
"""A box in a folder: fake versions from real wheels, and a service that is a real process."""

import ensurepip
import json
import os
import platform
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
import zipfile
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from pipeline.box.health import Limits
from pipeline.box.layout import Layout
from pipeline.box.manager import InitScript
from pipeline.box.manifest import Manifest, describe_files, read_manifest, write_manifest
from pipeline.box.updating import Updater
from pipeline.telling.database import open_database

ROOT = Path(__file__).parents[3]
FAKE = Path(__file__).with_name("fake_version.py")
LIMITS = Limits(watch_s=0.4, ready_s=4.0, silent_s=1.0, poll_s=0.05)

_QUICK = """\
set -eu
target=$SIGHTLINE_ROOT/opt/sightline/{version}
[ ! -e "$target/manifest.json" ] || exit 0
rm -rf "$target"; mkdir -p "$target"
{python} -m venv --without-pip "$target/venv"
{python} -m zipfile -e "$1"/wheels/sightline-*.whl "$target"/venv/lib/python3*/site-packages
printf '#!%s\\nimport sys, sightline\\nsys.exit(sightline.main())\\n' "$target/venv/bin/python" \
    > "$target/venv/bin/sightline"
chmod +x "$target/venv/bin/sightline"
cp "$1/manifest.json" "$target/manifest.json"
"""
_INIT = """\
#!/bin/sh
file={root}/service.pid
pid=$(cat "$file" 2>/dev/null || echo none)
case $1 in
start)
    cd {root}/var/lib/sightline
    setsid {root}/opt/sightline/current/venv/bin/sightline serve {root}/etc/sightline/serve.yaml \
        </dev/null >/dev/null 2>&1 &
    echo $! > "$file" ;;
stop)
    kill "$pid" 2>/dev/null
    while [ -e /proc/$pid/exe ]; do sleep 0.02; done
    rm -f "$file" ;;
status) [ -e /proc/$pid/exe ] ;;
esac
"""


def build_bundle(folder: Path, version: str, mode: str = "good", *, with_pip: bool = False) -> Path:
    """A bundle of a fake version; with pip it is installed by the script that boxes run."""
    module = FAKE.read_text().replace('VERSION = "0"', f"VERSION = {version!r}")
    module = module.replace('MODE = "good"', f"MODE = {mode!r}")
    return bundle_of(folder, version, {"sightline.py": module}, with_pip=with_pip)


def bundle_of(folder: Path, version: str, files: dict[str, str], *, with_pip: bool) -> Path:
    """A bundle of a version that is made of these files, the command in the first of them."""
    wheels, deploy = folder / "wheels", folder / "deploy"
    wheels.mkdir(parents=True)
    deploy.mkdir()
    _build_wheel(wheels, version, files)
    if with_pip:
        bundled = Path(ensurepip.__file__).with_name("_bundled")
        shutil.copy(next(bundled.glob("pip-*.whl")), wheels)
        shutil.copy(ROOT / "deploy/make_version.sh", deploy)
    else:
        script = _QUICK.format(version=version, python=sys.executable)
        (deploy / "make_version.sh").write_text(script)
    for name in ("recover.sh", "sightline.service"):
        shutil.copy(ROOT / "deploy" / name, deploy)
    manifest = Manifest(
        version=version,
        arch=platform.machine(),
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        created="2026-01-01T00:00:00Z",
        files=describe_files(folder),
    )
    write_manifest(folder, manifest)
    return folder


def _build_wheel(folder: Path, version: str, modules: dict[str, str]) -> None:
    info = f"sightline-{version}.dist-info"
    command = Path(next(iter(modules))).stem
    files = {
        **modules,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: sightline\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\nsightline = {command}:main\n",
    }
    record = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / f"sightline-{version}-py3-none-any.whl", "w") as wheel:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(name, text)


class Box:
    """A box with a version installed, which does not run yet."""

    def __init__(self, root: Path, first: Path) -> None:
        self.layout = Layout(root)
        self.root = root
        for folder in (self.layout.versions, self.layout.trusted, self.layout.state):
            folder.mkdir(parents=True)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.layout.settings.write_text(f"http: {{listen: '127.0.0.1:{self.port}'}}\n")
        self.settings = self.layout.settings.read_bytes()
        self.init = root / "init"
        self.init.write_text(_INIT.format(root=root))
        self.init.chmod(0o755)
        with closing(open_database(self.layout.database)) as database:
            add_event(database, "before", seq=1)
        self.first = first
        subprocess.run(
            ["sh", first / "deploy/make_version.sh", first],
            env={**os.environ, "SIGHTLINE_ROOT": str(root)},
            check=True,
        )
        self.layout.current.symlink_to(read_manifest(first).version)
        self.manager = InitScript(self.init)

    def updater(self, limits: Limits = LIMITS) -> Updater:
        return Updater(self.layout, self.manager, limits)

    def running(self) -> str | None:
        """The version that answers."""
        try:
            address = f"http://127.0.0.1:{self.port}/api/status"
            with urllib.request.urlopen(address, timeout=2) as answer:
                return json.load(answer)["version"]
        except OSError:
            return None

    def wait_for(self, version: str) -> None:
        until_s = time.monotonic() + 20
        while (found := self.running()) != version:
            assert time.monotonic() < until_s, f"{found} answers, wanted {version}"
            time.sleep(0.02)

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.layout.database)) as connection:
            return connection.execute(statement).fetchall()

    def versions(self) -> set[str]:
        """Installed versions."""
        return {path.parent.name for path in self.layout.versions.glob("*/venv")
                if not path.parent.is_symlink()}  # fmt: skip

    def links(self) -> tuple[str, str | None]:
        previous = self.layout.previous
        before = previous.readlink().name if previous.is_symlink() else None
        return self.layout.current.readlink().name, before

    def close(self) -> None:
        """End the service, whatever has become of it."""
        pid = self.root / "service.pid"
        if pid.exists():
            with suppress(ProcessLookupError):
                os.killpg(int(pid.read_text()), signal.SIGKILL)


def add_event(database: sqlite3.Connection, name: str, seq: int) -> None:
    """An event that waits for a receiver."""
    database.execute(
        "INSERT INTO events (id, revision, camera, kind, started_s, at_s, open, body) "
        "VALUES (?, 1, 'yard', 'enter', 0, 0, 0, x'')",
        (name,),
    )
    database.execute(
        "INSERT INTO outbox (receiver, seq, id, revision, put_s, body) VALUES "
        "('hook', ?, ?, 1, 0, x'')",
        (seq, name),
    )
