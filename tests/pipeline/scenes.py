"""Moving squares, and an engine that finds them: a whole pipeline without weights."""

import json
import random
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.bitstream import BitStreamFilterContext
from safetensors.numpy import save_file

from model.card import CARD_KEY, Card
from model.engines import Engine

CLASSES = ("square", "person")
ANCHORS = 32
SIZE = 40


def make_scene(
    path: Path,
    *,
    num_frames: int = 30,
    width: int = 320,
    height: int = 192,
    speed: int = 3,
    bframes: int = 3,
    halts: Collection[int] = (),
    options: dict[str, str] | None = None,
) -> Path:
    """An H.264 clip of one bright square that moves to the right over a dark ground.

    It does not move from the frame before to one in `halts`.
    """
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream("libx264", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "veryfast", "crf": "12", "g": "10", "bf": str(bframes)}
        way = 0
        for index in range(num_frames):
            picture = np.full((height, width, 3), 20, np.uint8)
            way += 0 if index == 0 or index in halts else speed
            left = 10 + way % (width - SIZE - 20)
            picture[60 : 60 + SIZE, left : left + SIZE] = 250
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def make_camera_pictures(folder: Path, *, num_frames: int = 50) -> Path:
    """The scene as one file a picture, as `rtsp_camera.py` sends it."""
    folder.mkdir()
    clip = make_scene(folder / "clip.mp4", num_frames=num_frames, bframes=0)
    with av.open(str(clip)) as container:
        video = container.streams.video[0]
        annexb = BitStreamFilterContext("h264_mp4toannexb", video)
        packets = [packet for packet in container.demux(video) if packet.size]
        for number, packet in enumerate(p for raw in packets for p in annexb.filter(raw)):
            (folder / f"{number:05d}.h264").write_bytes(bytes(packet))
    return folder


def make_card_file(path: Path, classes: Sequence[str] = CLASSES, **changes: object) -> Path:
    """A weights file in name only: enough for all that looks at the card."""
    card = Card(
        scale="T",
        classes=tuple(classes),
        class_width=80,
        box_groups=4,
        form="fused",
        source="made by a test",
    ).model_copy(update=changes)
    save_file({"nothing": np.zeros(1, np.float32)}, path, {CARD_KEY: card.model_dump_json()})
    return path


class SquareEngine:
    """Finds bright blobs; its requests end in any order, after a moment."""

    name = "squares"
    precision = "uint8"
    classes = CLASSES
    num_requests = 4
    takes = "canvases"
    gives = "predictions"
    has_room = True

    def __init__(
        self, image_hw: tuple[int, int], batch: int = 1, *, fail_at: int | None = None
    ) -> None:
        self.input_shape = (batch, *image_hw, 3)
        self.output_shape = (batch, 4 + len(CLASSES), ANCHORS)
        self.num_started = 0
        self.most_at_once = 0
        self._fail_at = fail_at
        self._pool = ThreadPoolExecutor(self.num_requests)
        self._running = 0
        self._lock = threading.Lock()
        self._random = random.Random(7)

    def infer(self, images: np.ndarray) -> np.ndarray:
        rows = np.zeros(self.output_shape, np.float32)
        for look, image in enumerate(images):
            bright = (image.min(axis=2) > 200).astype(np.uint8)
            count, _, stats, _ = cv2.connectedComponentsWithStats(bright)
            for anchor, (left, top, width, height, area) in enumerate(stats[1:count]):
                if area > 20 and anchor < ANCHORS:
                    rows[look, :4, anchor] = left, top, left + width, top + height
                    rows[look, 4, anchor] = 0.9
        return rows

    def start(
        self,
        images: np.ndarray,
        predictions: np.ndarray,
        on_done: Callable[[BaseException | None], None],
    ) -> None:
        with self._lock:
            self.num_started += 1
            self._running += 1
            self.most_at_once = max(self.most_at_once, self._running)
            pause_s = self._random.uniform(0, 0.004)
            failing = self.num_started == self._fail_at

        def work() -> None:
            time.sleep(pause_s)
            if not failing:
                predictions[:] = self.infer(images)
            with self._lock:
                self._running -= 1
            on_done(RuntimeError("the engine broke") if failing else None)

        self._pool.submit(work)

    def close(self) -> None:
        self._pool.shutdown()


def build_squares(_: Any, *, image_hw: tuple[int, int], batch: int = 1) -> Engine:
    """Stands in for `model.engines.build_engine`."""
    return SquareEngine(image_hw, batch)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def count_frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


class Once:
    """A call that is made the first time only."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._done = False

    def __call__(self) -> None:
        if not self._done:
            self._done = True
            self._call()
