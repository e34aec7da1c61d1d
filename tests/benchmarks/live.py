"""What the programs about live streams share: cameras, an engine of known speed, figures."""

import queue
import sys
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from safetensors.numpy import save_file

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # these programs are called by their path

from model.card import CARD_KEY, Card  # noqa: E402
from model.config import ModelConfig  # noqa: E402
from tests.pipeline.cameras import GStreamerCamera, has_gstreamer, make_film  # noqa: E402
from tests.pipeline.small_camera import SmallCamera  # noqa: E402

RATE = 25
"""Frames a second of the cameras."""
_BOXES = 5
_ANCHORS = 32


class TimedEngine:
    """Takes a fixed time for each picture, one after the other, and finds the same boxes in all."""

    name = "timed"
    precision = "none"
    classes = ("thing",)
    num_requests = 2  # the second is at hand when the first is done
    takes = "canvases"
    gives = "predictions"
    has_room = True

    def __init__(self, image_hw: tuple[int, int], service_s: float) -> None:
        self.input_shape = (1, *image_hw, 3)
        self.output_shape = (1, 5, _ANCHORS)
        self._rows = np.zeros(self.output_shape, np.float32)
        left = np.arange(_BOXES) * 40
        self._rows[0, :, :_BOXES] = left, left, left + 30, left + 30, np.full(_BOXES, 0.9)
        self._service_s = service_s
        self._asked: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def infer(self, images: np.ndarray) -> np.ndarray:
        del images
        time.sleep(self._service_s)
        return self._rows

    def start(
        self,
        images: np.ndarray,
        predictions: np.ndarray,
        on_done: Callable[[BaseException | None], None],
    ) -> None:
        del images

        def answer() -> None:
            predictions[:] = self._rows
            on_done(None)

        self._asked.put(answer)

    def close(self) -> None:
        self._asked.put(None)
        self._thread.join()

    def _work(self) -> None:
        free_s = time.monotonic()
        while (answer := self._asked.get()) is not None:
            # By the clock, so that a late wake-up does not lower the capacity.
            free_s = max(free_s, time.monotonic() - self._service_s) + self._service_s
            time.sleep(max(0.0, free_s - time.monotonic()))
            answer()


class BuildTimed:
    """Stands in for `model.engines.build_engine`, in any process."""

    def __init__(self, service_s: float) -> None:
        self._service_s = service_s

    def __call__(self, _: ModelConfig, *, image_hw: tuple[int, int], **_more: int) -> TimedEngine:
        return TimedEngine(image_hw, self._service_s)


def timed_card(folder: Path) -> Path:
    """A weights file in name only, for the engine above."""
    path = folder / "timed.safetensors"
    card = Card(
        scale="T",
        classes=TimedEngine.classes,
        class_width=80,
        box_groups=4,
        form="fused",
        source="made by a benchmark",
    )
    save_file({"nothing": np.zeros(1, np.float32)}, path, {CARD_KEY: card.model_dump_json()})
    return path


def make_camera(clip: Path | None, folder: Path, size: str) -> GStreamerCamera | SmallCamera:
    """A camera that loops a real clip, or moving squares, in the size `WIDTHxHEIGHT`."""
    width, height = map(int, size.split("x"))
    film = folder / "film.mp4"
    if clip is None:
        make_film(film, width=width, height=height, num_frames=100, keyframe_each=50)
    else:
        _camera_film(clip, film, width=width, height=height, num_frames=250)
    if has_gstreamer():
        return GStreamerCamera(film, folder / "pictures")
    return SmallCamera(film)


def _camera_film(source: Path, target: Path, *, width: int, height: int, num_frames: int) -> None:
    """The first frames of a clip as a camera sends them: no B-frames, a keyframe every 2 s."""
    with av.open(str(source)) as original, av.open(str(target), "w") as made:
        stream = made.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "veryfast", "crf": "23", "g": "50", "bf": "0"}
        stream.time_base = Fraction(1, RATE)
        for number, frame in enumerate(original.decode(video=0)):
            if number == num_frames:
                break
            picture = frame.reformat(width, height, "yuv420p")
            picture.pts, picture.time_base = number, Fraction(1, RATE)
            made.mux(stream.encode(picture))
        made.mux(stream.encode(None))


def percentile(values: list[float], share: float) -> float:
    """A percentile by the nearest rank, to 3 decimals."""
    ranked = sorted(values)
    return round(ranked[min(len(ranked) - 1, int(len(ranked) * share))], 3)
