# SPDX-License-Identifier: Apache-2.0
"""What a power cut has left, held against what counted as kept."""

import json
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[2]))  # called by its path

import msgspec
from cut_recorder import RATE, config_for, content_of

from model.engines.cache import read_artefact
from pipeline.rules.memory import RulesMemory
from pipeline.telling.database import open_database
from pipeline.telling.teller import Teller
from tests.pipeline.sinks.videos import decode
from tests.pipeline.telling.builders import wait_until

MAY_LOSE_S: Final = 2.0
"""A recording plays up to the last second but one."""
NOBODY_LISTENS: Final = 9

Told = dict[str, list[tuple[str, int, float]]]


def check(image: Path, said: Told, told: list[str], cut_s: float) -> dict[str, Any]:
    """Mount what was left, look at everything in it, and start on it."""
    with tempfile.TemporaryDirectory() as name:
        mounted = Path(name)
        subprocess.run(["mount", "-o", "loop", image, mounted], check=True)
        try:
            found = Left(mounted, said, told, cut_s).look()
        finally:
            subprocess.run(["umount", mounted], check=True)
    repaired = subprocess.run(["e2fsck", "-fn", image], capture_output=True, text=True, check=False)
    if repaired.returncode:
        found["faults"].append(f"the file system is damaged: {repaired.stdout[-300:]}")
    return found


class Left:
    """One file system after a cut."""

    def __init__(self, folder: Path, said: Told, told: list[str], cut_s: float) -> None:
        self.folder, self.said, self.told, self.cut_s = folder, said, told, cut_s
        self.faults: list[str] = []
        self.checked: Counter[str] = Counter()
        self.video_lost_s = self.lines_lost_s = 0.0

    def look(self) -> dict[str, Any]:
        """Everything there is."""
        self._look_at_whole_files()
        self._look_at_cache()
        self._look_at_snapshots()
        self._look_at_recordings()
        self._look_at_database()
        self._start()
        return {
            "events": len(self.said.get("event", ())),
            "told": len(set(self.told)),
            "videos": self.checked["video"] + self.checked["video in progress"],
            "video_lost_s": round(self.video_lost_s, 3),
            "lines_lost_s": round(self.lines_lost_s, 3),
            "checked": dict(self.checked),
            "faults": self.faults,
        }

    def _fault(self, text: str) -> None:
        self.faults.append(text)

    def _look_at_whole_files(self) -> None:
        """Settings and memory: whole, and not older than what counted as written."""
        for kind, path in (("settings", "serve.yaml"), ("memory", "state/yard.json")):
            least = max((value for _, value, _ in self.said.get(kind, ())), default=0)
            if not least and not (self.folder / path).exists():
                continue
            try:
                number = getattr(self, f"_number_in_{kind}")((self.folder / path).read_bytes())
            except (OSError, ValueError, msgspec.MsgspecError) as failure:
                self._fault(f"{path}: {failure!r}")
                continue
            self.checked[kind] += 1
            if number < least:
                self._fault(f"{path}: number {number}, but {least} counted as written")

    def _number_in_settings(self, content: bytes) -> int:
        number = int(content.split(b"\n", 1)[0])
        if content != content_of("settings", number, 5000):
            raise ValueError("torn")
        return number

    def _number_in_memory(self, content: bytes) -> int:
        return msgspec.json.decode(content, type=RulesMemory).crossed["gate"][0].num_in

    def _look_at_cache(self) -> None:
        """Artefacts: read whole, or not at all where none counted as written."""
        least = {name: value for name, value, _ in self.said.get("cache", ())}
        for name in ("0", "1", "2"):
            artefact = read_artefact(self.folder / f"cache/{name}.artefact")
            number = int(artefact.split(b"\n", 1)[0]) if artefact is not None else 0
            if artefact is not None and artefact != content_of("cache", number, 1 << 19):
                self._fault(f"artefact {name}: read, but spoilt")
            if number < least.get(name, 0):
                self._fault(f"artefact {name}: number {number}, but {least[name]} was written")
            self.checked["artefact"] += artefact is not None

    def _look_at_snapshots(self) -> None:
        """Pictures: all that counted as written, and none that is torn."""
        paths = {path.stem: path for path in self.folder.glob("snapshots/*/*.jpg")}
        for name, number, _ in self.said.get("snapshot", ()):
            if name not in paths:
                self._fault(f"snapshot {number} is missing")
        for name, path in paths.items():
            self.checked["snapshot"] += 1
            if path.read_bytes() != content_of("snapshot", int(name[12:], 16), 30_000):
                self._fault(f"{path.name}: spoilt")

    def _look_at_recordings(self) -> None:
        """The last clips: finished ones whole, one in progress but for its end."""
        frames, lines = self._by_clip("frame"), self._by_clip("line")
        whole = {
            kind: {name for name, _, _ in self.said.get(kind, ())} for kind in ("video", "text")
        }
        for name in sorted(frames)[-3:]:
            path = self._either(f"{name}.mp4")
            number = self._num_pictures(path)
            state = "video" if name in whole["video"] else "video in progress"
            self.checked[state] += path is not None
            lost_s = self._lost_s(state, name, frames[name], number)
            self.video_lost_s = max(self.video_lost_s, lost_s)
        for name in sorted(lines)[-3:]:
            number = self._num_lines(self._either(f"{name}.jsonl"))
            state = "text" if name in whole["text"] else "text in progress"
            self.checked[state] += 1
            lost_s = self._lost_s(state, name, lines[name], number)
            self.lines_lost_s = max(self.lines_lost_s, lost_s)

    def _by_clip(self, kind: str) -> dict[str, list[float]]:
        """By clip, when its frames counted as written; only of the process that runs."""
        clips: dict[str, list[float]] = {}
        for name, _, at_s in self.said.get(kind, ()):
            clips.setdefault(name, []).append(at_s)
        latest = max(clips, default="").split("-")[0]
        return {name: times for name, times in clips.items() if name.startswith(f"{latest}-")}

    def _either(self, name: str) -> Path | None:
        """The file, or what it is called while it is written."""
        paths = (self.folder / "out" / name, self.folder / "out" / f"{name}.partial")
        return next((path for path in paths if path.exists()), None)

    def _num_pictures(self, path: Path | None) -> int:
        if path is None or not path.stat().st_size:
            return 0
        try:
            times = decode(path, may_break_off=path.suffix == ".partial").pts_s
        except Exception as failure:  # noqa: BLE001 - whatever a player does not take
            if path.suffix != ".partial" or path.stat().st_size > 4096:
                self._fault(f"{path.name}: does not play: {failure!r}")
            return 0
        if any(abs(at_s - index / RATE) > 1e-3 for index, at_s in enumerate(times)):
            self._fault(f"{path.name}: pictures are missing in between")
        return len(times)

    def _num_lines(self, path: Path | None) -> int:
        if path is None:
            return 0
        content = path.read_bytes()
        if path.suffix == ".partial":  # its end may have holes, where sizes came before content
            content = content.partition(b"\0")[0]
        pieces = content.split(b"\n")[:-1]
        for index, piece in enumerate(pieces):
            if json.loads(piece)["frame"] != index + 1:
                self._fault(f"{path.name}: line {index + 1} is another one")
        return len(pieces)

    def _lost_s(self, state: str, name: str, times: list[float], number: int) -> float:
        """Seconds of a clip that had been written and are not there."""
        lost_s = max(0, len(times) - number) / RATE
        if not lost_s:
            return 0.0
        if "progress" not in state or lost_s > MAY_LOSE_S:
            behind_s = self.cut_s - times[number]
            self._fault(f"{state} {name}: {number} of {len(times)} frames; {behind_s:.2f} s behind")
        return lost_s

    def _look_at_database(self) -> None:
        """Whole, with all events that counted as kept; each has been told or waits."""
        path = self.folder / "kept/events.db"
        if not self.said.get("event") and not path.exists():
            return
        with closing(open_database(path)) as connection:
            ((verdict,),) = connection.execute("PRAGMA integrity_check").fetchall()
            kept = {name for (name,) in connection.execute("SELECT id FROM events")}
            waiting = self._waiting(connection)
        if verdict != "ok":
            self._fault(f"database: {verdict}")
        self.checked["database"] += 1
        said = {name for name, _, _ in self.said.get("event", ())}
        if missing := said - kept:
            self._fault(f"database: {len(missing)} events that counted as kept are missing")
        if missing := set(self.told) - kept:
            self._fault(f"database: {len(missing)} events that were told are missing")
        if missing := kept - set(self.told) - waiting:
            self._fault(f"outbox: {len(missing)} events were not told and do not wait")

    def _waiting(self, connection: sqlite3.Connection) -> set[str]:
        rows = connection.execute("SELECT id FROM outbox WHERE receiver LIKE '%a'")
        return {name for (name,) in rows}

    def _start(self) -> None:
        """Go on from here: each event that counted as kept gets to the file of JSON lines."""
        if not (self.folder / "kept/events.db").exists():
            return
        teller = Teller(config_for(self.folder, NOBODY_LISTENS))
        try:
            wait_until(lambda: not teller.statistics().receivers["jsonl"].waiting, within_s=60)
        finally:
            teller.close(1.0)
        retries: dict[str, list[bool]] = {}
        for path in self.folder.glob("told/events.jsonl*"):
            for line in path.read_bytes().splitlines():
                letter = json.loads(line)
                retries.setdefault(letter["event"]["id"], []).append(letter["retry"])
        said = {name for name, _, _ in self.said.get("event", ())}
        if missing := said - set(retries):
            self._fault(f"told/events.jsonl: {len(missing)} events are missing")
        if unmarked := [name for name, marks in retries.items() if marks.count(False) > 1]:
            self._fault(f"told/events.jsonl: {len(unmarked)} events are there twice without a mark")
        self.checked["start"] += 1
