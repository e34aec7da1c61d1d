"""Engines whose boxes are planned: by the number that each picture of a clip shows.

One takes canvases and gives predictions; the other takes pictures as decoders make them, in
batches, and gives boxes. On the same clip both find the same.
"""

import ctypes
import random
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from PIL import Image

from model.cuda.coded import FORMATS, CodedPicture, DeviceArray
from model.cuda.plan import GpuWanted
from model.engines.found import write_found
from model.suppression import suppress
from tests.pipeline.scenes import CLASSES

if TYPE_CHECKING:
    from tests.model.cuda.host_device import HostDevice

BITS = 8
ANCHORS = 12
Done = Callable[[BaseException | None], None]


def numbered(number: int, width: int, height: int) -> np.ndarray:
    """A picture that shows its number: white and black columns, the highest bit on the left."""
    picture = np.full((height, width, 3), 20, np.uint8)
    for place in range(BITS):
        if number >> (BITS - 1 - place) & 1:
            picture[:, place * width // BITS : (place + 1) * width // BITS] = 235
    return picture


def make_clip(
    path: Path, num_frames: int, *, width: int = 320, height: int = 192, **stream: Any
) -> Path:
    """Pictures 0, 1, 2, ... as a clip."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=Fraction(25))
        video.width, video.height = width, height
        video.pix_fmt = stream.get("pixel_format", "yuv420p")
        video.options = {"preset": "ultrafast", "crf": "20", "g": "10", "bf": "0"}
        for number in range(num_frames):
            picture = numbered(number, width, height)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
    return path


def make_pictures(folder: Path, sizes: list[tuple[int, int]]) -> Path:
    """A folder of pictures 0, 1, 2, ... of these widths and heights."""
    folder.mkdir()
    for number, (width, height) in enumerate(sizes):
        Image.fromarray(numbered(number, width, height)).save(folder / f"{number:03d}.png")
    return folder


def number_of_canvas(canvas: np.ndarray) -> int:
    """What the whole picture on a canvas shows."""
    height, width, _ = canvas.shape
    return _number(lambda place: canvas[height // 2, (2 * place + 1) * width // (2 * BITS), 0])


def number_of_coded(picture: CodedPicture, pixels: np.ndarray) -> int:
    """What a picture shows that is as its decoder made it."""
    coded = picture.coded
    assert pixels.nbytes == coded.num_bytes
    height, width = coded.coded_hw
    layout = FORMATS[coded.pixel_format]
    first = layout.components[0]
    row = coded.offsets[first.plane] + height // 2 * coded.pitches[first.plane] + first.first

    def brightness(place: int) -> int:
        at = row + (2 * place + 1) * width // (2 * BITS) * first.step
        sample = pixels[at : at + 1 + layout.wide].tobytes()
        return int.from_bytes(sample, "little") >> layout.shift + layout.bits - 8

    return _number(brightness)


def _number(brightness: Callable[[int], int]) -> int:
    return sum((brightness(place) > 128) << (BITS - 1 - place) for place in range(BITS))


def planned(number: int, looks: int) -> np.ndarray:
    """What the network says about a picture: boxes that move, some that others drop, some faint."""
    random = np.random.default_rng(number)
    rows = np.zeros((looks, 4 + len(CLASSES), ANCHORS), np.float32)
    rows[:, :2] = random.uniform(0, 60, (looks, 2, ANCHORS))
    rows[:, :2, :2] = 10 + 0.4 * number, 30
    rows[:, :2, 2:4] = 100 - 0.3 * number, 50
    rows[:, 2:4] = rows[:, :2] + 25 + random.uniform(0, 1, (looks, 2, ANCHORS))
    rows[:, 4] = random.uniform(0, 0.2, (looks, ANCHORS))
    rows[:, 4, :4] = 0.9, 0.8, 0.3, 0.7
    rows[:, 5, 4:6] = 0.6, 0.05
    return rows


class PlannedEngine:
    """Takes canvases and gives predictions, as an engine for the processor."""

    name, precision, classes, num_requests = "planned", "none", CLASSES, 4
    takes, gives, has_room = "canvases", "predictions", True

    def __init__(self, image_hw: tuple[int, int], batch: int) -> None:
        self.input_shape = (batch, *image_hw, 3)
        self.output_shape = (batch, 4 + len(CLASSES), ANCHORS)

    def infer(self, images: np.ndarray) -> np.ndarray:
        return planned(number_of_canvas(images[0]), len(images))

    def start(self, images: np.ndarray, predictions: np.ndarray, on_done: Done) -> None:
        predictions[:] = self.infer(images)
        on_done(None)

    def close(self) -> None:
        pass


class Noted:
    """Hears of the memory that pictures lie in."""

    def __init__(self) -> None:
        self.registered: dict[int, int] = {}
        """Bytes at each address."""
        self.num_ever = self.num_missed = 0

    def register(self, memory: np.ndarray) -> None:
        assert memory.ctypes.data not in self.registered
        self.registered[memory.ctypes.data] = memory.nbytes
        self.num_ever += 1

    def forget(self, memory: np.ndarray) -> None:
        del self.registered[memory.ctypes.data]

    def holds(self, pixels: np.ndarray) -> bool:
        first = pixels.ctypes.data
        return any(
            at <= first and first + pixels.nbytes <= at + size
            for at, size in tuple(self.registered.items())
        )


NOTED = Noted()
"""That of all engines of this process, as of one GPU."""


class PlannedGpu:
    """Takes pictures as decoders make them and gives boxes, as an engine for a GPU.

    Batches are collected in one thread and end in another, after a while, in any order.
    """

    name, precision, classes = "planned gpu", "none", CLASSES
    takes, gives = "coded", "boxes"

    def __init__(
        self,
        image_hw: tuple[int, int],
        looks: int,
        wanted: GpuWanted,
        batch_s: float = 0.004,
        device: "HostDevice | None" = None,
    ) -> None:
        self.input_shape = (looks, *image_hw, 3)
        self.output_shape = (looks, 1 + wanted.suppression.max_boxes, 6)
        self.num_requests = wanted.in_flight * max(wanted.batch_sizes) // looks
        self.host_memory = NOTED
        self.device = device
        self.num_read_there = 0
        """Pictures so far that lay on the device."""
        self._stream = None if device is None else device.stream()
        self.seen: list[int] = []
        """Numbers of the pictures that were looked at."""
        self.batches: list[int] = []
        """How many there were in each batch."""
        self._wanted = wanted
        self._most = max(wanted.batch_sizes) // looks
        self._batch_s = batch_s
        self._random = random.Random(3)
        self._lock = threading.Lock()
        self._collecting: list[Callable[[], None]] = []
        self._batches: SimpleQueue[bool] = SimpleQueue()
        self._threads = [threading.Thread(target=self._work) for _ in range(wanted.in_flight)]
        for thread in self._threads:
            thread.start()

    @property
    def has_room(self) -> bool:
        return len(self._collecting) < self._most

    def infer(self, images: np.ndarray) -> np.ndarray:
        assert images.shape == self.input_shape
        return np.zeros(self.output_shape, np.float32)

    def start(
        self, images: np.ndarray | CodedPicture, predictions: np.ndarray, on_done: Done
    ) -> None:
        assert isinstance(images, CodedPicture)
        assert len(images.regions) == self.input_shape[0]
        assert self.has_room
        read = self._reading(images.pixels)

        def finish() -> None:
            number = number_of_coded(images, read())
            self.seen.append(number)
            write_found(list(self._found(number)), predictions)
            on_done(None)

        with self._lock:
            self._collecting.append(finish)
        self._batches.put(True)

    def close(self) -> None:
        threads, self._threads = self._threads, []
        for _ in threads:
            self._batches.put(False)
        for thread in threads:
            thread.join()

    def _reading(self, pixels: np.ndarray | DeviceArray) -> Callable[[], np.ndarray]:
        """Begin to read a picture; what is returned waits for the end of that."""
        if isinstance(pixels, np.ndarray):
            assert not pixels.flags.writeable
            NOTED.num_missed += not NOTED.holds(pixels)
            return lambda: pixels
        assert self.device is not None
        assert pixels.ready is not None
        assert pixels.lender is not None
        self.num_read_there += 1
        there = np.empty(pixels.num_bytes, np.uint8)
        address = pixels.address

        def read() -> None:
            ctypes.memmove(there.ctypes.data, address, there.nbytes)

        self._stream.wait(pixels.ready)
        self.device.put(self._stream, read)
        ended = self.device.event()
        ended.record(self._stream)
        pixels.lender.read_until(ended)

        def wait() -> np.ndarray:
            ended.synchronize()
            return there

        return wait

    def _found(self, number: int) -> Iterator[Any]:
        for rows in planned(number, self.input_shape[0]):
            yield suppress(rows, self._wanted.suppression, classes=self._wanted.class_ids)

    def _work(self) -> None:
        while self._batches.get():
            with self._lock:
                batch, self._collecting = self._collecting, []
            if batch:
                self.batches.append(len(batch))
                time.sleep(self._batch_s * self._random.uniform(0.2, 1))
                self._random.shuffle(batch)
            for finish in batch:
                finish()


def build_planned(
    _: Any, *, image_hw: tuple[int, int], batch: int = 1, gpu: GpuWanted | None = None
) -> PlannedEngine | PlannedGpu:
    """Stands in for `model.engines.build_engine`, in any process."""
    return PlannedEngine(image_hw, batch) if gpu is None else PlannedGpu(image_hw, batch, gpu)
