# SPDX-License-Identifier: Apache-2.0
"""Installs a box on a bare Debian that no network reaches, works there, and removes it.

    sightline bundle --output BUNDLE
    python tests/benchmarks/bare_debian.py --bundle BUNDLE [--debian ROOT] [--suite bookworm]

Needs root and debootstrap. The system is debootstrap's smallest plus python3, in a namespace of its
own with nothing but a loopback. Bundles that are damaged, and an installation that is cut short,
must leave the file tree as it was; then `install.sh` runs, `sightline run` works through a clip,
`sightline serve` watches two RTSP cameras as the service's user, and `uninstall.sh` must leave the
file tree as it was. One JSON object says what that took; the exit code is 1 if anything is wrong.

Its figures of 2026-11-22 are in docs/guides/air-gapped.md.
"""

import argparse
import errno
import hashlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # this program is called by its path

from pipeline.demo.street import write_street  # noqa: E402
from tests.pipeline.small_camera import SmallCamera  # noqa: E402

CLIP_S = 8.0
SERVED_FRAMES = 100
SERVED_LIMIT_S = 180.0
NOT_OF_THE_TREE = ("proc", "dev", "sys", "mnt", "tmp")
BACKUPS = frozenset({"etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-"})
"""What useradd and userdel keep of a file before they change it, as all tools for users do."""
AS_SERVICE = (
    "setpriv", "--reuid", "sightline", "--regid", "sightline", "--init-groups", "--reset-env",
    "env", "XDG_CACHE_HOME=/var/cache", "MPLCONFIGDIR=/var/cache/sightline/matplotlib",
    "TORCHINDUCTOR_CACHE_DIR=/var/cache/sightline/inductor",
)  # fmt: skip
STATUS = "http://127.0.0.1:8710"

Tree = dict[str, tuple[int, int, int, str]]


def main() -> int:
    """Make the system, then go on inside its namespace."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument(
        "--debian", type=Path, help="a bare system that is there; made if not given"
    )
    parser.add_argument("--suite", default="bookworm")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside is not None:
        return inside(options.bundle.resolve(), options.inside)
    with tempfile.TemporaryDirectory() as folder:
        box = Path(folder) / "box"
        if options.debian is None:
            bootstrap(options.suite, box)
        else:
            subprocess.run(["cp", "-a", str(options.debian), str(box)], check=True)
        command = [sys.executable, __file__, "--bundle", str(options.bundle), "--inside", str(box)]
        spaces = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]
        return subprocess.run([*spaces, *command], check=False).returncode


def bootstrap(suite: str, box: Path) -> None:
    """The smallest Debian, with python3 and nothing else."""
    subprocess.run(
        ["debootstrap", "--variant=minbase", "--include=python3", suite, str(box)],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def inside(bundle: Path, box: Path) -> int:
    """All that is to be shown, in a namespace of mounts, processes and network."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    refuse_a_way_out()
    (box / "mnt/bundle").mkdir()
    mount("--bind", str(bundle), str(box / "mnt/bundle"))
    mount("-o", "remount,ro,bind", str(box / "mnt/bundle"))
    mount("-t", "proc", "proc", str(box / "proc"))
    mount("--rbind", "/dev", str(box / "dev"))
    clip = write_street(box / "mnt/street.mp4", seconds=CLIP_S)
    before = tree_of(box)
    report: dict[str, Any] = {
        "bundle_mb": megabytes(bundle),
        "refused": refusals(bundle, box, before),
        "install_s": timed(lambda: install(box, "/mnt/bundle")),
        "installed_mb": megabytes(box / "opt/sightline"),
        "again_s": timed(lambda: install(box, "/mnt/bundle")),
        "run": run_job(box),
        "serve": serve(box, clip),
    }
    grown = sorted(set(tree_of(box)) - set(before))
    report["paths_installed"] = len(grown)
    report["uninstall_s"] = timed(lambda: chroot(box, "sh", "/opt/sightline/uninstall.sh", "--yes"))
    report["left_over"] = differences(before, tree_of(box))
    report["well"] = not report["left_over"] and all(
        not refusal["changed"] and refusal["code"] != 0 for refusal in report["refused"].values()
    )
    print(json.dumps(report, indent=2))
    return 0 if report["well"] else 1


def refuse_a_way_out() -> None:
    """Only a loopback may be there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outward:
        code = outward.connect_ex(("192.0.2.1", 9))
    if code != errno.ENETUNREACH:
        sys.exit("this namespace has a way out")


def refusals(bundle: Path, box: Path, before: Tree) -> dict[str, dict[str, Any]]:
    """What must not go through, and whether it changed anything."""
    bad = box / "mnt/bad"
    found = {}
    for name, spoil in SPOILS.items():
        subprocess.run(["cp", "-a", str(bundle), str(bad)], check=True)
        spoil(bad)
        done = chroot(box, "sh", "/mnt/bad/install.sh", check=False)
        found[name] = {
            "code": done.returncode,
            "said": done.stderr.strip().splitlines()[-3:],
            "changed": differences(before, tree_of(box)),
        }
        shutil.rmtree(bad)
    found["ended while unpacking"] = cut_short(box) | {
        "changed": differences(before, tree_of(box)),
    }
    return found


def damage_a_wheel(bundle: Path) -> None:
    """One byte of the last file to be read."""
    wheel = sorted((bundle / "wheels").iterdir())[-1]
    content = bytearray(wheel.read_bytes())
    content[len(content) // 2] ^= 1
    wheel.write_bytes(bytes(content))


def lose_a_wheel(bundle: Path) -> None:
    """As when a copy was cut short."""
    next((bundle / "wheels").glob("numpy-*.whl")).unlink()


def change_the_arch(bundle: Path) -> None:
    """As when the wrong stick was taken."""
    manifest = bundle / "manifest.json"
    manifest.write_text(manifest.read_text().replace('x86_64"', 'riscv64"', 1))


SPOILS: dict[str, Callable[[Path], None]] = {
    "damaged wheel": damage_a_wheel,
    "missing wheel": lose_a_wheel,
    "another processor": change_the_arch,
}


def cut_short(box: Path) -> dict[str, Any]:
    """End an installation in the middle of its work, when torch is being unpacked."""
    command = ["chroot", str(box), "sh", "/mnt/bundle/install.sh"]
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as running:
        wait_for(lambda: any(box.glob("opt/sightline/*/venv/lib/*/site-packages/*")), 120)
        os.killpg(running.pid, signal.SIGTERM)
        said = running.communicate(timeout=120)[1]
    return {"code": running.returncode, "said": said.strip().splitlines()[-3:]}


def install(box: Path, bundle: str) -> None:
    """Install, and show what it says."""
    print(chroot(box, "sh", f"{bundle}/install.sh").stdout, file=sys.stderr)


def run_job(box: Path) -> dict[str, Any]:
    """The main job over a clip: tracks and video."""
    (box / "tmp/out").mkdir()
    chroot(box, "chown", "sightline", "/tmp/out")
    began = time.monotonic()
    done = chroot(
        box, *AS_SERVICE, "sightline", "run", "/mnt/street.mp4", "--save-video", "--json",
        "--set", "output.directory=/tmp/out/run",
    )  # fmt: skip
    took_s = time.monotonic() - began
    summary = json.loads(done.stdout)
    lines = (box / "tmp/out/run/street.mot.txt").read_text().splitlines()
    video_mb = megabytes(box / "tmp/out/run/street.mp4")
    shutil.rmtree(box / "tmp/out")
    if not summary["complete"] or not lines:
        sys.exit(f"the job did not do its work: {summary}")
    return {"seconds": round(took_s, 1), "boxes": len(lines), "video_mb": video_mb}


def serve(box: Path, clip: Path) -> dict[str, Any]:
    """Two cameras, by the settings that were installed and a password of the environment."""
    cameras = {name: SmallCamera(clip) for name in ("yard", "door")}
    settings = box / "etc/sightline/serve.yaml"
    entries = "".join(
        f"  {name}:\n"
        f"    source: {camera.address('bob:${CAMERA_PASSWORD}')}\n"
        "    zones: {all: [[0, 0], [1, 0], [1, 1], [0, 1]]}\n"
        "    rules: [{name: seen, kind: enter, zone: all}]\n"
        for name, camera in cameras.items()
    )
    settings.write_text(settings.read_text().replace("cameras: {}\n", f"cameras:\n{entries}"))
    for camera in cameras.values():
        camera.on()
    command = [
        "chroot", str(box), *AS_SERVICE, "CAMERA_PASSWORD=se%25cret",
        "sh", "-c", "cd /var/lib/sightline && exec sightline serve /etc/sightline/serve.yaml",
    ]  # fmt: skip
    began = time.monotonic()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as service:
        try:
            wait_for(lambda: asked("/healthz") is not None, SERVED_LIMIT_S)
            healthy_s = time.monotonic() - began
            wait_for(lambda: least_tracked() >= SERVED_FRAMES, SERVED_LIMIT_S)
            tracked_s = time.monotonic() - began
            events = len(json.loads(asked("/api/events?limit=500") or "{}").get("events", ()))
        finally:
            service.send_signal(signal.SIGTERM)
            log = service.communicate(timeout=90)[1]
            for camera in cameras.values():
                camera.off()
    if service.returncode != 0:
        sys.exit(f"serve ended with {service.returncode}:\n{log}")
    return {
        "healthy_s": round(healthy_s, 1),
        "both_tracked_100_frames_s": round(tracked_s, 1),
        "events": events,
        "database_bytes": (box / "var/lib/sightline/events.db").stat().st_size,
    }


def asked(path: str) -> str | None:
    """What the service answers; nothing while it does not."""
    try:
        with urllib.request.urlopen(STATUS + path, timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return None


def least_tracked() -> int:
    """Frames tracked of the camera that has fewest."""
    metrics = asked("/metrics") or ""
    counts = [
        float(line.rsplit(" ", 1)[1])
        for line in metrics.splitlines()
        if line.startswith("sightline_frames_tracked_total{")
    ]
    return int(min(counts)) if len(counts) == 2 else 0


def wait_for(holds: Callable[[], bool], limit_s: float) -> None:
    """Wait until something holds; the program ends if it does not in time."""
    until = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > until:
            sys.exit(f"waited {limit_s:.0f} s in vain")
        time.sleep(0.2)


def chroot(box: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run something on the box, with no variable of ours."""
    done = subprocess.run(
        ["chroot", str(box), *command],
        env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    if check and done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def mount(*arguments: str) -> None:
    """Mount, in this namespace alone."""
    subprocess.run(["mount", *arguments], check=True)


def tree_of(box: Path) -> Tree:
    """Every path of a system with mode, owner, group and a digest of what it holds."""
    found: Tree = {}
    for folder, folders, files in os.walk(box):
        if Path(folder) == box:
            folders[:] = [name for name in folders if name not in NOT_OF_THE_TREE]
        for name in (*folders, *files):
            path = Path(folder) / name
            status = path.lstat()
            found[str(path.relative_to(box))] = (
                status.st_mode, status.st_uid, status.st_gid, held_by(path, status.st_mode),
            )  # fmt: skip
    found |= {f"tmp/{path.name}": (0, 0, 0, "") for path in (box / "tmp").iterdir()}
    return found


def held_by(path: Path, mode: int) -> str:
    """The digest of a file, the target of a link."""
    if stat.S_ISLNK(mode):
        return str(path.readlink())
    if not stat.S_ISREG(mode):
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def differences(before: Tree, after: Tree) -> list[str]:
    """Paths that came, went or changed, but for the system's backups of its users' files."""
    paths: Sequence[str] = sorted(before.keys() | after.keys())
    return [path for path in paths if before.get(path) != after.get(path) and path not in BACKUPS]


def megabytes(path: Path) -> float:
    """Size of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return round(sum(file.lstat().st_size for file in files) / 1e6, 1)


def timed(work: Callable[[], object]) -> float:
    """Seconds that something takes."""
    began = time.monotonic()
    work()
    return round(time.monotonic() - began, 1)


if __name__ == "__main__":
    sys.exit(main())
