# SPDX-License-Identifier: Apache-2.0
"""What power is cut under: writes every kind of file there is, and says what it was told is kept.

    python tests/benchmarks/cut_recorder.py FOLDER PORT RUN FIRST

Each line on stdout is KIND NAME VALUE TIME, printed once the call that wrote it has returned. RUN
names the recordings of this process, FIRST numbers its first event.
"""

import hashlib
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # called by its path

from model.engines.cache import write_artefact
from model.files import write_whole
from pipeline.rules.memory import DayCount, RulesMemory
from pipeline.serve.watching import MemoryFile
from pipeline.sinks.encoders import X264
from pipeline.sinks.jsonl import JsonlWriter
from pipeline.sinks.mp4 import Mp4Writer
from pipeline.telling.teller import Teller
from pipeline.tracking.tracks import Tracks
from tests.pipeline.pictures import nv12_of
from tests.pipeline.sinks.videos import smooth_picture
from tests.pipeline.telling.builders import make_config, make_event

RATE, CLIP_S = 25, 12
KEPT_CLIPS = 4
EVENTS_A_S = 20
NUMBERS_OF_A_RUN = 1_000_000


def say(kind: str, name: object, value: object) -> None:
    """One line, whole, stamped before it is printed."""
    sys.stdout.write(f"{kind} {name} {value} {time.time()}\n")
    sys.stdout.flush()


def config_for(folder: Path, port: int) -> Any:
    """One webhook and one file."""
    return make_config(
        folder,
        outbox={"longest_pause_s": 1.0},
        webhooks=[{"name": "a", "url": f"http://127.0.0.1:{port}/", "timeout_s": 5.0}],
        jsonl={"path": folder / "told/events.jsonl", "rotate_mib": 1},
    )


def content_of(name: str, number: int, num_bytes: int) -> bytes:
    """Bytes that can be told from those of any other number."""
    seed = hashlib.sha256(f"{name} {number}".encode()).hexdigest()
    return f"{number}\n".encode() + random.Random(seed).randbytes(num_bytes)


def tell_events(folder: Path, port: int, first: int) -> None:
    """Events one after the other, every fifth with a picture."""
    teller = Teller(config_for(folder, port))
    number = first
    while True:
        began_s = time.monotonic()
        event = make_event(number, id=f"{int(time.time() * 1000):012x}{number:020x}")
        if number % 5 == 0:
            teller.snapshots.save(event.id, content_of("snapshot", number, 30_000))
            say("snapshot", event.id, number)
        teller.tell(event)
        assert teller.flush(60)
        say("event", event.id, number)
        number += 1
        time.sleep(max(0.0, began_s + 1 / EVENTS_A_S - time.monotonic()))


def record(folder: Path, run: int) -> None:
    """Clips with their tracks, one after the other, in real time."""
    folder.mkdir(exist_ok=True)
    pictures = [nv12_of(smooth_picture(index)) for index in range(RATE)]
    clip = 0
    while True:
        record_one(folder, f"{run:03d}-{clip:04d}", pictures)
        for suffix in ("mp4", "jsonl"):
            old = folder / f"{run:03d}-{clip - KEPT_CLIPS:04d}.{suffix}"
            old.unlink(missing_ok=True)
        clip += 1


def record_one(folder: Path, name: str, pictures: list[Any]) -> None:
    """One clip."""
    video = Mp4Writer(
        folder / f"{name}.mp4",
        picture_hw=(240, 320),
        matrix="bt709",
        frame_rate=Fraction(RATE),
        encoder=replace(X264, threads=1),
    )
    text = JsonlWriter(folder / f"{name}.jsonl", ["person"])
    began_s = time.monotonic()
    for index in range(RATE * CLIP_S):
        pts_ns = index * 1_000_000_000 // RATE
        video.write(pictures[index % RATE], pts_ns)
        say("frame", name, index)
        text.write(index, pts_ns, Tracks.empty())
        say("line", name, index)
        time.sleep(max(0.0, began_s + (index + 1) / RATE - time.monotonic()))
    video.finish()
    say("video", name, RATE * CLIP_S)
    text.finish()
    say("text", name, RATE * CLIP_S)


def remember(folder: Path, run: int) -> None:
    """What a camera's rules know, settings, and artefacts, each as the system writes them."""
    memory, number = MemoryFile(folder / "state/yard.json"), run * NUMBERS_OF_A_RUN
    while True:
        number += 1
        memory.note(RulesMemory(crossed={"gate": (DayCount(day="2026-01-01", num_in=number),)}))
        memory.write()
        say("memory", "yard", number)
        write_whole(folder / "serve.yaml", content_of("settings", number, 5000), "settings")
        say("settings", "serve", number)
        key = number % 3
        write_artefact(folder / f"cache/{key}.artefact", content_of("cache", number, 1 << 19))
        say("cache", key, number)
        time.sleep(0.3)


def begin(work: Callable[..., None], *values: Any) -> None:
    """Have it done beside the others."""
    threading.Thread(target=work, args=values, daemon=True).start()


def main() -> None:
    """Write until killed."""
    folder, port, run, first = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    begin(record, folder / "out", run)
    begin(remember, folder, run)
    tell_events(folder, port, first)


if __name__ == "__main__":
    main()
