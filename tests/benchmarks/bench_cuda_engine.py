# SPDX-License-Identifier: Apache-2.0
"""The detector on an NVIDIA GPU: latency, throughput, share of the peak, nearness to float32.

    python -m tests.benchmarks.bench_cuda_engine --scales T S C E --sizes 1 8 32 > cuda-engine.json

Of each size of the model and of the batch: the network in eager torch, compiled, and compiled and
captured, timed by the device's own clock; and the whole engine, from 1080p NV12 pictures in host
memory to boxes, timed by requests that ended. Shares are of what one large matrix product of the
same number format reaches here. Outputs are held against eager float32 torch on the same pictures;
with `--data` average precision too. Weights are random where `--weights` has none of a size. What
is compiled is built in `--builders` processes and loaded again from a cache of its own.

One canvas is used again and again: on its way through the pipeline, too, it was just written.
Without a GPU it says so and ends with 2. It has never run on one.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
import torch
from torch import Tensor

from model.average_precision import measure, read_coco, require_evaluator
from model.card import read_card
from model.config import ModelConfig, Suppression
from model.cuda.candidates import NONE
from model.cuda.coded import Coded, CodedPicture
from model.cuda.compiling import compile_network
from model.cuda.device import Device
from model.cuda.draft import DTYPES
from model.cuda.plan import GpuWanted, NetworkKind, NetworkPlan, NumberFormat
from model.engines import build_engine
from model.engines.busy import keep_busy
from model.errors import EngineError
from model.figures import FIGURES
from model.parity import make_pictures
from model.reparam import fuse
from model.scales import SCALES, ScaleName
from model.slicing import Region
from model.weights import save_weights
from tests.benchmarks.cuda_timing import (
    RUNS,
    WARM_UPS,
    gpu_surroundings,
    percentiles,
    stop_without_gpu,
    time_each_us,
    time_us,
)
from tests.model.builders import make_calm_detector, make_card

PICTURE_HW: Final = (1080, 1920)
NUM_PICTURES: Final = 64
"""Of 3.1 MB each: three times what the cache of a large GPU holds."""
MATRIX_SIDE: Final = 8192
SHOWN: Final = 0.25
"""Boxes that score above this are compared."""
ROUNDS: Final = 5


class Clock:
    """Times what torch puts on one stream of a device."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._stream = device.stream()

    def each(self, run: Callable[[], object]) -> dict[str, float]:
        """Microseconds of runs one after another, as torch starts them."""
        torch.cuda.synchronize()  # what is read was made on another stream
        with torch.cuda.stream(torch.cuda.ExternalStream(self._stream.handle)):
            return time_each_us(self._stream, run)

    def captured(self, run: Callable[[], object]) -> dict[str, float]:
        """Microseconds of runs as one graph each."""

        def record() -> None:
            run()

        return time_us(self.device, self._stream, record)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what was asked for and print one JSON object."""
    options = parse(arguments)
    stop_without_gpu("bench_cuda_engine")
    if options.data:
        require_evaluator()
    from model.cuda.cuda_device import CudaDevice

    clock = Clock(CudaDevice())
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SIGHTLINE_CACHE"] = folder
        weights = find_weights(options, Path(folder))
        peak = matrix_tflops(clock, options.numbers)
        result = {
            **gpu_surroundings(clock.device),
            "canvas": f"{options.canvas[0]}x{options.canvas[1]}",
            "numbers": options.numbers,
            "matrix_tflops": round(peak, 1),
            "scales": [
                measure_scale(scale, weights[scale], options, clock, peak)
                for scale in options.scales
            ],
        }
    print(json.dumps(result, indent=2))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    scales = get_args(ScaleName)
    parser.add_argument("--scales", nargs="+", choices=scales, default=["T", "S", "C", "E"])
    parser.add_argument("--weights", nargs="*", type=Path, default=[], help="files of Sightline")
    parser.add_argument("--canvas", type=_canvas, default=(640, 640), help="HEIGHTxWIDTH")
    parser.add_argument("--sizes", nargs="+", type=int, default=[1, 8, 32], help="of batches")
    parser.add_argument("--numbers", choices=get_args(NumberFormat), default="f16")
    parser.add_argument("--how", choices=get_args(NetworkKind), default="auto")
    parser.add_argument("--builders", type=int, default=4)
    parser.add_argument("--data", type=Path, help="COCO data set to measure AP of T on")
    return parser.parse_args(arguments)


def _canvas(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return int(height), int(width)


def find_weights(options: argparse.Namespace, folder: Path) -> dict[ScaleName, Path]:
    """A file of each size: a given one, or random weights."""
    given = {read_card(path).scale: path for path in options.weights}
    return {scale: given.get(scale) or random_weights(scale, folder) for scale in options.scales}


def random_weights(scale: ScaleName, folder: Path) -> Path:
    """A file of weights whose outputs behave like those of trained ones."""
    classes = tuple(f"class {number}" for number in range(80))
    path = folder / f"{scale}.safetensors"
    card = make_card(scale=scale, classes=classes, class_width=SCALES[scale].class_width)
    save_weights(path, fuse(make_calm_detector(scale, len(classes))), card)
    return path


def measure_scale(
    scale: ScaleName,
    weights: Path,
    options: argparse.Namespace,
    clock: Clock,
    peak_tflops: float,
) -> dict[str, Any]:
    """Figures of one size of the model."""
    plans = [
        NetworkPlan(
            weights=weights,
            canvas_hw=options.canvas,
            batch=size,
            number_format=options.numbers,
            how=options.how,
            device=0,
        )
        for size in options.sizes
    ]
    with ProcessPoolExecutor(options.builders, mp_context=get_context("spawn")) as builders:
        build_s = list(builders.map(seconds_to_compile, plans))
    gflops = gflops_of(scale, options.canvas)
    batches = []
    for plan, seconds in zip(plans, build_s, strict=True):
        batches.append(measure_batch(plan, clock, gflops, peak_tflops))
        batches[-1]["build_s"] = round(seconds, 1)
        print(f"{scale}, {plan.batch}: {json.dumps(batches[-1])}", file=sys.stderr)
    result = {"scale": scale, "weights": weights.name, "gflops": gflops, "batches": batches}
    if options.data and scale == "T":
        result["average_precision"] = average_precisions(weights, options)
    return result


def seconds_to_compile(plan: NetworkPlan) -> float:
    """How long it takes to build a network, or to load it from the cache."""
    began = time.perf_counter()
    compile_network(plan)
    return time.perf_counter() - began


def measure_batch(
    plan: NetworkPlan, clock: Clock, gflops: float, peak_tflops: float
) -> dict[str, Any]:
    """Figures of one size of the batch."""

    def figures(times_us: dict[str, float]) -> dict[str, float]:
        return summed_up(times_us, plan.batch, gflops, peak_tflops)

    inputs = make_inputs(plan)
    eager = compile_network(replace(plan, how="eager"))
    sides = {"eager": figures(clock.each(lambda: eager(*inputs)))}
    load_s = seconds_to_compile(plan)
    network = compile_network(plan)
    sides["compiled"] = figures(clock.each(lambda: network(*inputs)))
    sides["captured"] = figures(clock.captured(lambda: network(*inputs)))
    sides["whole engine"] = figures(engine_times(plan))
    exact = compile_network(replace(plan, number_format="f32", how="eager"))
    expected = exact(inputs[0].float(), *inputs[1:])
    return {
        "batch": plan.batch,
        "how": network.how,
        "load_s": round(load_s, 2),
        "sides": sides,
        "apart": apart(network(*inputs), expected),
    }


def make_inputs(plan: NetworkPlan) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures on the device, and limits by which every anchor is a candidate."""
    device = torch.device("cuda", plan.device) if plan.device >= 0 else torch.device("cpu")
    pictures = torch.from_numpy(make_pictures((plan.batch, *plan.canvas_hw))).to(device)
    canvases = (pictures.permute(0, 3, 1, 2).float() / 255).to(DTYPES[plan.number_format])
    num_classes = len(read_card(plan.weights).classes)
    wanted = torch.ones(num_classes, dtype=torch.bool, device=device)
    return canvases, torch.tensor(-1.0, device=device), wanted


def engine_times(plan: NetworkPlan) -> dict[str, float]:
    """Microseconds a batch with the engine at full load, and of one request alone for batch 1."""
    wanted = GpuWanted(
        device=plan.device,
        batch_sizes=(plan.batch,),
        in_flight=2,
        window_ms=4.0,
        file_batch=plan.batch,
        arena_mib=-(-plan.batch * nv12(0).coded.num_bytes >> 20) + 1,
        suppression=Suppression(),
        class_ids=None,
    )
    config = ModelConfig(weights=plan.weights, engine="cuda", precision=plan.number_format)
    pictures = [nv12(number) for number in range(NUM_PICTURES)]
    with closing(build_engine(config, image_hw=plan.canvas_hw, gpu=wanted)) as engine:
        keep_busy(engine, pictures, WARM_UPS * plan.batch)
        if plan.batch == 1:
            return percentiles(list(times_alone(engine, pictures)))
        return percentiles(list(times_full(engine, pictures, plan.batch)))


def times_full(engine: Any, pictures: Sequence[CodedPicture], batch: int) -> Iterator[float]:
    """Microseconds a batch at full load: the mean of each of some rounds."""
    each = RUNS // ROUNDS
    for _ in range(ROUNDS):
        began = time.perf_counter()
        keep_busy(engine, pictures, each * batch)
        yield (time.perf_counter() - began) * 1e6 / each


def times_alone(engine: Any, pictures: Sequence[CodedPicture]) -> Iterator[float]:
    """Microseconds of each request while no other is made."""
    for number in range(RUNS):
        began = time.perf_counter()
        keep_busy(engine, [pictures[number % len(pictures)]], 1)
        yield (time.perf_counter() - began) * 1e6


def nv12(seed: int) -> CodedPicture:
    """A picture of noise as decoders hand them out."""
    height, width = PICTURE_HW
    num_bytes = height * width * 3 // 2
    coded = Coded(
        pixel_format="nv12",
        coded_hw=PICTURE_HW,
        offsets=(0, height * width),
        pitches=(width, width),
        matrix="bt709",
        full_range=False,
        upright_hw=PICTURE_HW,
        num_bytes=num_bytes,
    )
    random = np.random.default_rng(seed)
    return CodedPicture(
        pixels=random.integers(16, 236, num_bytes, dtype=np.uint8),
        coded=coded,
        regions=(Region.whole(PICTURE_HW),),
        fixed=True,
    )


def matrix_tflops(clock: Clock, numbers: NumberFormat) -> float:
    """What a large product of matrices reaches, in 10^12 operations a second."""
    left, right = (
        torch.randn(MATRIX_SIDE, MATRIX_SIDE, device="cuda", dtype=DTYPES[numbers])
        for _ in range(2)
    )
    return 2 * MATRIX_SIDE**3 / clock.each(lambda: left @ right)["median"] / 1e6


def gflops_of(scale: ScaleName, canvas_hw: tuple[int, int]) -> float:
    """Of one image on a canvas; all layers are convolutions, so they go by its area."""
    height, width = canvas_hw
    return round(FIGURES[scale].fused.gflops * height * width / 640**2, 3)


def summed_up(
    times_us: dict[str, float], batch: int, gflops: float, peak_tflops: float
) -> dict[str, float]:
    """Times of a batch, images a second, and the share of the matrix peak."""
    images_per_s = batch * 1e6 / times_us["median"]
    return {
        "p50_ms": round(times_us["median"] / 1000, 4),
        "p90_ms": round(times_us["p90"] / 1000, 4),
        "p99_ms": round(times_us["p99"] / 1000, 4),
        "images_per_s": round(images_per_s, 1),
        "share_of_peak": round(images_per_s * gflops / 1000 / peak_tflops, 4),
    }


def apart(actual: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """How far boxes and scores are from others of the same pictures, every anchor a candidate."""
    scores, wanted = scores_of(actual[1]), scores_of(expected[1])
    shown = wanted > SHOWN
    sides_px = (actual[0] - expected[0]).abs()[shown].flatten()
    if not len(sides_px):
        raise EngineError(f"no box scores above {SHOWN}: nothing to compare; give other weights")
    return {
        "boxes": int(shown.sum()),
        "box_px_max": round(sides_px.max().item(), 4),
        "box_px_p99": round(sides_px.quantile(0.99).item(), 4),
        "score_max": round((scores - wanted).abs().max().item(), 5),
    }


def scores_of(keys: Tensor) -> Tensor:
    """The score of each anchor; 0 where it is no candidate."""
    bits = (0x7FFFFFFF - (keys >> 32)).to(torch.int32)
    return torch.where(keys == NONE, 0.0, bits.view(torch.float32))


def average_precisions(weights: Path, options: argparse.Namespace) -> dict[str, float]:
    """COCO's AP in the number format measured and in float32, both on the device."""
    data = read_coco(options.data, read_card(weights).classes)
    found = {}
    for precision in (options.numbers, "f32"):
        config = ModelConfig(weights=weights, engine="cuda", precision=precision)
        with closing(build_engine(config, image_hw=options.canvas)) as engine:
            found[precision] = measure(engine, data)["AP"]
    return found


if __name__ == "__main__":
    main()
