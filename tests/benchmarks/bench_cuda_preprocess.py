# SPDX-License-Identifier: Apache-2.0
"""Preprocessing on a GPU: time of a batch, share of the copy bandwidth, and error.

    python -m tests.benchmarks.bench_cuda_preprocess [--frames FILE.npz] [--quick]

It has never run. A launch's bytes are those of its planes and canvases; the share is of what a copy
within the device's memory moves in the same time, read and written. Pictures and canvases are
rotated through more memory than the cache holds. FILE.npz holds real pictures as NV12, rows x width
each, for the error; random ones are always measured.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from model.cuda.coded import FORMATS, Coded, PixelFormat
from model.cuda.device import Device, Stream
from model.cuda.looks import LOOK, describe
from model.cuda.plan import NumberFormat
from model.cuda.source import OUT, letterbox_launch
from model.letterbox import rectangle
from model.slicing import Region
from tests.benchmarks.cuda_timing import (
    copy_bytes_per_s,
    gpu_surroundings,
    stop_without_gpu,
    time_us,
)
from tests.model.cuda.coded_pictures import Shot, make_coded, make_shot
from tests.model.cuda.kernels import Kernels

SIZES = {"720p": (720, 1280), "1080p": (1080, 1920), "2160p": (2160, 3840)}
BATCHES = (1, 8, 32, 64)
LONG_SIDE = 640
PITCH = 256
"""Of a hardware decoder's rows."""
ROTATED_BYTES = 160_000_000
"""More than twice any card's cache."""
_BYTES_OF: dict[NumberFormat, int] = {"f32": 4, "f16": 2, "bf16": 2}


@dataclass(frozen=True)
class Case:
    """A batch of pictures of one kind."""

    pixel_format: PixelFormat
    picture: str
    batch: int
    number_format: NumberFormat = "f16"
    channels_last: bool = True

    @property
    def coded(self) -> Coded:
        return make_coded(self.pixel_format, SIZES[self.picture], pitch_multiple=PITCH)

    @property
    def canvas_hw(self) -> tuple[int, int]:
        return rectangle(SIZES[self.picture], LONG_SIDE)

    @property
    def moved_bytes(self) -> int:
        """Read and written by a launch, each byte of a sample and of a canvas once."""
        layout = FORMATS[self.pixel_format]
        counts = (each.counts(self.coded.coded_hw) for each in layout.components)
        samples = sum(width * height for width, height in counts) * (2 if layout.wide else 1)
        height, width = self.canvas_hw
        return self.batch * (samples + 3 * height * width * _BYTES_OF[self.number_format])

    @property
    def launches(self) -> int:
        """In one captured graph, each with its own pictures and canvases."""
        return max(2, ceil(ROTATED_BYTES / self.moved_bytes))


def cases(*, quick: bool) -> Iterator[Case]:
    """NV12 at 1080p in all batches, then every other format and size at batch 32."""
    for batch in BATCHES:
        yield Case("nv12", "1080p", batch)
    yield Case("nv12", "1080p", 32, "f16", channels_last=False)
    yield Case("nv12", "1080p", 32, "f32")
    if quick:
        return
    for picture in ("720p", "2160p"):
        yield Case("nv12", picture, 1)
        yield Case("nv12", picture, 32)
    for pixel_format in FORMATS:
        if pixel_format != "nv12":
            yield Case(pixel_format, "1080p", 32)


def main() -> None:
    """Measure every case and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    stop_without_gpu("bench_cuda_preprocess")
    from tests.model.cuda.cuda_machine import CudaMachine, open_device

    device = open_device()
    stream = device.stream()
    copied = copy_bytes_per_s(device, stream)
    result = {
        **gpu_surroundings(device),
        "copy_gb_per_s": round(copied / 1e9, 1),
        "errors": list(errors(Kernels(CudaMachine(device)), options.frames)),
        "cases": [measure(device, stream, case, copied) for case in cases(quick=options.quick)],
    }
    print(json.dumps(result, indent=2))


def measure(device: Device, stream: Stream, case: Case, copied: float) -> dict[str, Any]:
    """Time one case."""
    import torch

    launches = case.launches
    pictures = torch.randint(
        0, 256, (launches * case.batch, case.coded.num_bytes + PITCH), dtype=torch.uint8
    )
    there = device.empty(tuple(pictures.shape), torch.uint8)
    there.copy_(pictures)
    height, width = case.canvas_hw
    kind = torch.float32 if case.number_format == "f32" else torch.float16
    canvases = device.empty((launches * case.batch, 3, height, width), kind)
    whole = Region.whole(case.coded.upright_hw)
    entries = np.array(
        [describe(case.coded, slot_address(row), whole, (height, width), 0) for row in there], LOOK
    )
    looks = device.empty((entries.nbytes,), torch.uint8)
    looks.copy_(torch.from_numpy(entries.view(np.uint8)))

    def run() -> None:
        for place in range(launches):
            launch_one(device, stream, case, looks, canvases, place)

    spread = {name: each / launches for name, each in time_us(device, stream, run).items()}
    seconds = spread["median"] / 1e6
    return {
        "pixel_format": case.pixel_format,
        "picture": case.picture,
        "batch": case.batch,
        "number_format": case.number_format,
        "channels_last": case.channels_last,
        "batch_us": round(spread["median"], 2),
        "batch_us_p99": round(spread["p99"], 2),
        "picture_us": round(spread["median"] / case.batch, 2),
        "gb_per_s": round(case.moved_bytes / seconds / 1e9, 1),
        "share_of_copy": round(case.moved_bytes / seconds / copied, 3),
    }


def slot_address(row: Any) -> int:
    """The first address in a row of memory at which a slot may begin."""
    return -(-row.data_ptr() // PITCH) * PITCH


def launch_one(
    device: Device, stream: Stream, case: Case, looks: Any, canvases: Any, place: int
) -> None:
    """Put one batch of the rotation on the stream."""
    height, width = case.canvas_hw
    strides = (1, 3 * width, 3) if case.channels_last else (height * width, width, 1)
    image = 3 * height * width
    first = place * case.batch
    args = (
        looks.data_ptr() + first * LOOK.itemsize,
        canvases.data_ptr() + first * image * _BYTES_OF[case.number_format],
        width,
        height,
        image,
        *strides,
    )
    shape = letterbox_launch(case.batch, case.canvas_hw)
    device.launch(
        "letterbox_batch", shape.grid, shape.block, args, stream, OUT=OUT[case.number_format]
    )


def errors(kernels: Kernels, frames: Path | None) -> Iterator[dict[str, Any]]:
    """Levels between the kernel and the filter in float64, at 1080p and on real frames."""
    shots = {name: make_shot(name, SIZES["1080p"]) for name in FORMATS}
    if frames is not None:
        shots |= {f"{frames.name}:{name}": shot for name, shot in real_shots(frames)}
    for name, shot in shots.items():
        canvas_hw = rectangle(shot.coded.upright_hw, LONG_SIDE)
        expected = shot.expected(canvas_hw)
        for number_format in ("f32", "f16"):
            made = kernels.letterbox([shot], canvas_hw, number_format=number_format)[0]
            difference = np.abs(made.astype(np.float64) * 255 - expected)
            yield {
                "picture": name,
                "number_format": number_format,
                "largest_levels": round(float(difference.max()), 5),
                "mean_levels": round(float(difference.mean()), 6),
            }


def real_shots(frames: Path) -> Iterator[tuple[str, Shot]]:
    """The pictures of a file, in slots of their own."""
    with np.load(frames) as pictures:
        for name in pictures.files:
            rows, width = pictures[name].shape
            coded = make_coded("nv12", (rows * 2 // 3, width))
            pixels = np.zeros(coded.num_bytes, np.uint8)
            planes = np.split(pictures[name], [rows * 2 // 3])
            for plane, offset, pitch in zip(planes, coded.offsets, coded.pitches, strict=True):
                lines = pixels[offset : offset + len(plane) * pitch].reshape(len(plane), pitch)
                lines[:, :width] = plane
            yield name, Shot(coded, pixels, Region.whole(coded.upright_hw))


if __name__ == "__main__":
    main()
