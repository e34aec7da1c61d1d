# SPDX-License-Identifier: Apache-2.0
"""From what a user names to the streams it stands for."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from pipeline.cameras import PLAIN, CameraConfig
from pipeline.decoding.redaction import redact
from pipeline.errors import SourceUnreadable

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg",
     ".flv", ".wmv", ".3gp", ".ogv", ".h264", ".264", ".h265", ".hevc", ".mjpeg", ".y4m", ".gif"}
)  # fmt: skip
SourceKind = Literal["file", "image", "images", "rtsp", "http", "device", "replay", "gstreamer"]

_SCHEMES: Final[dict[str, SourceKind]] = {
    "rtsp://": "rtsp",
    "rtsps://": "rtsp",
    "http://": "http",
    "https://": "http",
}
_REPLAY = "replay:"
_GSTREAMER = "gst:"
_NAME_BYTES = 120
_WILDCARDS = re.compile(r"[*?\[]")

_DEVICE = re.compile(r"(/dev/video)?[0-9]{1,2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One stream to be: where it comes from and what it is called."""

    name: str
    kind: SourceKind
    location: str
    """Path or address; an address may hold a password, so show `label`."""
    camera: CameraConfig = PLAIN
    """What is particular about it."""
    pictured: bool = False
    """Whether whoever watches it may want its pictures; who records it gets them anyway."""

    @property
    def live(self) -> bool:
        """Whether it goes on whether we read it or not."""
        return self.kind not in ("file", "image", "images")

    @property
    def by_gstreamer(self) -> bool:
        """Whether GStreamer reads and decodes it, in a process of its own."""
        return self.kind == "gstreamer" or self.camera.decoder == "gstreamer"

    @property
    def label(self) -> str:
        """The location as it may be shown; of a pipeline, only what it begins with."""
        if self.kind == "gstreamer":
            return f"{_GSTREAMER}{_first_element(self.location)}"
        return redact(self.location)


def find_sources(named: Sequence[str]) -> tuple[Source, ...]:
    """The streams that files, globs, folders and addresses stand for, in the order given.

    A folder stands for every video in it and, where it holds images, for one stream that shows
    them in the order of their names.

    Raises:
        SourceUnreadable: something named does not exist or holds nothing to read.
    """
    found: list[tuple[SourceKind, str, str]] = []
    for name in named:
        try:
            found.extend(_expand(name))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SourceUnreadable(f"{redact(name)}: cannot be read ({reason})") from error
    return tuple(
        Source(name=name, kind=kind, location=location)
        for name, (kind, location, _) in zip(_unique(f[2] for f in found), found, strict=True)
    )


def camera_source(name: str, named: str, camera: CameraConfig) -> Source:
    """The one stream that a camera's settings stand for, under the name they have.

    Raises:
        SourceUnreadable: it does not exist, or is several.
    """
    found = find_sources([named])
    if len(found) != 1:
        raise SourceUnreadable(f"{name}: {redact(named)} is {len(found)} streams; name one")
    return replace(found[0], name=name, camera=camera)


def image_files(folder: Path) -> tuple[Path, ...]:
    """The images of a folder by natural order of name: `frame2` before `frame10`."""
    images = (p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    return tuple(sorted(images, key=_natural))


def _expand(named: str) -> list[tuple[SourceKind, str, str]]:
    if (address := _address(named)) is not None:
        return [address]
    path = Path(named)
    if _DEVICE.fullmatch(named) and (path.is_char_device() or not path.exists()):
        return [_device(named)]
    if path.is_dir():
        return _folder(path)
    if not path.exists() and _WILDCARDS.search(named):
        return _glob(named)
    if not path.exists():
        raise SourceUnreadable(f"{redact(named)}: no such file; check the path")
    return [_file(path)]


def _address(named: str) -> tuple[SourceKind, str, str] | None:
    """What is named by its beginning and no path, if it is."""
    for scheme, kind in _SCHEMES.items():
        if named.lower().startswith(scheme):
            return kind, named, _camera_name(named)
    if named.startswith(_GSTREAMER):
        return _pipeline(named.removeprefix(_GSTREAMER).strip())
    if named.startswith(_REPLAY):
        return _replayed(Path(named.removeprefix(_REPLAY)))
    if "://" in named:
        raise SourceUnreadable(
            f"{redact(named)}: cannot read this kind of address; known are files, folders, "
            f"globs and {' '.join(_SCHEMES)}"
        )
    return None


def _replayed(path: Path) -> tuple[SourceKind, str, str]:
    if not path.is_file():
        raise SourceUnreadable(f"{redact(str(path))}: no such file to replay; check the path")
    return "replay", str(path), path.stem


def _pipeline(description: str) -> tuple[SourceKind, str, str]:
    element = _first_element(description)
    if not element:
        raise SourceUnreadable(
            "gst: names no element; expected a pipeline, as in gst:v4l2src ! videorate"
        )
    return "gstreamer", description, f"gst-{element}"


def _first_element(description: str) -> str:
    match = re.match(r"[A-Za-z][\w-]*", description)
    return match[0] if match else ""


def _device(named: str) -> tuple[SourceKind, str, str]:
    path = Path(f"/dev/video{named}" if named.isdecimal() else named)
    if not path.exists():
        known = sorted(str(device) for device in Path("/dev").glob("video*")) or ["none"]
        raise SourceUnreadable(f"{path}: no such camera; this machine has {', '.join(known)}")
    return "device", str(path), path.name


def _folder(folder: Path) -> list[tuple[SourceKind, str, str]]:
    videos = (p for p in folder.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
    found = [_file(path) for path in sorted(videos, key=_natural)]
    if image_files(folder):
        found.append(("images", str(folder), folder.resolve().name or "images"))
    if not found:
        raise SourceUnreadable(
            f"{redact(str(folder))}: the folder holds no video and no image; name another"
        )
    return found


def _glob(pattern: str) -> list[tuple[SourceKind, str, str]]:
    anchor = Path(pattern).anchor
    base, relative = (Path(anchor), str(Path(pattern).relative_to(anchor))) if anchor else (
        Path(), pattern)  # fmt: skip
    known = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    paths = sorted((p for p in base.glob(relative) if p.is_file()), key=_natural)
    found = [_file(path) for path in paths if path.suffix.lower() in known]
    if not found:
        raise SourceUnreadable(f"{redact(pattern)}: no video or image matches; check the pattern")
    return found


def _file(path: Path) -> tuple[SourceKind, str, str]:
    kind: SourceKind = "image" if path.suffix.lower() in IMAGE_SUFFIXES else "file"
    return kind, str(path), path.stem


def _camera_name(address: str) -> str:
    """A file name from host and path: `rtsp://user:pw@10.0.0.7:554/yard?x=1` -> `10.0.0.7-yard`."""
    place = redact(address).split("://", 1)[1]
    host, _, path = place.partition("/")
    name = "-".join([host.rsplit(":", 1)[0], *path.split("/")])
    return re.sub(r"[^\w.-]+", "_", name).strip("-_.") or "camera"


def _unique(names: Iterable[str]) -> list[str]:
    """The names, the second of one kind called `name-2`; case does not tell them apart."""
    taken: set[str] = set()
    unique = []
    for name in map(_presentable, names):
        candidate, number = name, 1
        while candidate.casefold() in taken:
            number += 1
            candidate = f"{name}-{number}"
        taken.add(candidate.casefold())
        unique.append(candidate)
    return unique


def _presentable(name: str) -> str:
    """The name as one line of UTF-8 whose length leaves room for suffixes."""
    printable = "".join(letter if letter.isprintable() else "_" for letter in name)
    valid = printable.encode()[:_NAME_BYTES].decode("utf-8", "ignore")
    return valid.replace("/", "_").strip() or "stream"


def _natural(path: Path) -> tuple[tuple[int, int | str], ...]:
    parts = re.split(r"(\d+)", str(path.with_suffix("")).casefold())
    numbered = ((0, int(part)) if part.isdecimal() else (1, part) for part in parts if part)
    return (*numbered, (-1, str(path)))  # paths that differ in nothing else have an order too
