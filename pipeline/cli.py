# SPDX-License-Identifier: Apache-2.0
"""sightline run, check, doctor, init, worker, keys: parse, call, print."""

import json
import logging
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from model.config import load_settings
from model.engines import build_engine
from model.errors import ConfigError
from model.files import write_new
from pipeline.config import (
    GateConfig,
    PipelineConfig,
    Placement,
    SourceConfig,
    TrackerKind,
    WorkerConfig,
)
from pipeline.doctor import examine
from pipeline.errors import OutputRefused
from pipeline.job import Job, describe_graph
from pipeline.probe import probe, settings_lines
from pipeline.progress import Progress, closing_lines
from pipeline.serve.checked import describe_service, is_service
from pipeline.serve.checked import read_config as load_service
from pipeline.station import Station
from pipeline.transport.curve import make_keys

_FAULT_LINES = 4
FAILED, INTERRUPTED, TERMINATED = 1, 130, 143


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Settings that have an option of their own; the rest go through --set.

    Attributes:
        model: Weights to detect with: a file, or a name that `sightline models` lists; the
            package's own model if not given.
        output: Folder for the results.
        save_video: Also write annotated video.
        overwrite: Replace results that exist.
        classes: Names of the classes to look for, separated by commas; all if not given.
        min_score: Score from which a box counts; what the model's card recommends if not given, or
            0.25.
        max_iou: Overlap above which the worse of two boxes is dropped.
        tracker: Method that joins boxes into tracks.
        engine: What runs the network: auto, openvino, torch, inductor, onnx, aoti or tensorrt.
        imgsz: Long side of the network's picture, a multiple of 32; what the model's card was
            measured at if not given, or 640.
        stride: Look at every so many frames; those between have no tracks.
        detect_every: Look at every so many frames; those between have predicted tracks.
        gate: Look only while something moves, for cameras that stand still.
        slices: Looks at each frame: the whole, and up to so many less one at magnified tiles.
        limit: Stop after so many frames of each source.
        placement: Run stages as threads of one process, or in processes that are replaced.
    """

    model: Annotated[Path | None, Parameter(alias="-m")] = None
    output: Annotated[Path | None, Parameter(alias="-o")] = None
    save_video: bool | None = None
    overwrite: bool | None = None
    classes: str | None = None
    min_score: float | None = None
    max_iou: float | None = None
    tracker: TrackerKind | None = None
    engine: str | None = None
    imgsz: int | None = None
    stride: int | None = None
    detect_every: int | None = None
    gate: bool | None = None
    slices: int | None = None
    limit: int | None = None
    placement: Placement | None = None

    def overrides(self) -> list[str]:
        """The options that were given, as assignments to the settings tree."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return [
            f"{_SETTING_OF[name]}={json.dumps(_plain(name, value))}"
            for name, value in given.items()
            if value is not None and name in _SETTING_OF
        ]


_SETTING_OF = {
    "model": "model.weights",
    "output": "output.directory",
    "save_video": "output.save_video",
    "overwrite": "output.overwrite",
    "classes": "classes",
    "min_score": "suppression.min_score",
    "max_iou": "suppression.max_iou",
    "tracker": "tracking.kind",
    "engine": "model.engine",
    "imgsz": "model.image_size",
    "stride": "source.stride",
    "detect_every": "source.detect_every",
    "slices": "slices.budget",
    "limit": "source.limit",
    "placement": "placement",
}


def run(
    *sources: str,
    options: Annotated[RunOptions | None, Parameter(name="*")] = None,
    config: Path | None = None,
    assign: Annotated[tuple[str, ...], Parameter(name="--set", negative=())] = (),
    quiet: bool = False,
    json_summary: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> int:
    """Detect and track in files, images and cameras.

    Writes NAME.mot.txt and NAME.jsonl for every source, NAME.mp4 with --save-video, and
    summary.json.

    Args:
        sources: Files, globs, folders, images, cameras (rtsp://, http://, 0), or gst:PIPELINE.
        options: Settings that have an option of their own.
        config: Settings as YAML.
        assign: Any setting as name=value, for example suppression.max_iou=0.6.
        quiet: Print nothing but errors.
        json_summary: Print the summary as JSON and nothing else.
    """
    logging.basicConfig(format="sightline: %(message)s", level=logging.WARNING)
    job = Job(settings_of(config, options or RunOptions(), assign), sources)
    ended_by = _run_until_signal(job, quiet=quiet or json_summary)
    if json_summary:
        print(json.dumps(job.summary(), indent=2))
    elif not quiet:
        for line in closing_lines(job):
            print(line)
    _print_faults(job)
    if ended_by is not None:
        return TERMINATED if ended_by == signal.SIGTERM else INTERRUPTED
    return 0 if job.complete else FAILED


def check(
    config: Path | None = None,
    *,
    options: Annotated[RunOptions | None, Parameter(name="*")] = None,
    assign: Annotated[tuple[str, ...], Parameter(name="--set", negative=())] = (),
) -> int:
    """Validate settings, of a run or a service, and print the graph they make.

    Args:
        config: Settings as YAML; without it, the defaults and what is assigned.
        options: Settings that have an option of their own.
        assign: Any setting as name=value.
    """
    if config is not None and is_service(config):
        if options is not None and options != RunOptions():
            raise ConfigError(f"{config}: is of a service, which has no options; use --set")
        print(describe_service(load_service(config, assign), build_engine))
        print("settings are valid")
        return 0
    print(describe_graph(settings_of(config, options or RunOptions(), assign)))
    print("settings are valid")
    return 0


def doctor() -> int:
    """Say what this machine can do, what is missing, and which engine it picks and why."""
    findings = examine()
    console = Console()
    for finding in findings:
        mark = "[green]ok[/]     " if finding.present else "[yellow]missing[/]"
        console.print(f"{mark} {finding.name:<12} {finding.detail}", highlight=False)
    return 0 if all(finding.present or finding.optional for finding in findings) else FAILED


def init(
    address: str,
    *,
    name: str | None = None,
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
) -> int:
    """Look at a camera for some seconds and print its settings for `sightline serve`.

    Passwords are neither printed nor written: the settings name a variable of the environment for
    each, and a line says which to set.

    Args:
        address: rtsp://, rtsps://, http:// or https://, or a device; ${NAME} in it stands for a
            variable, so that a password need not be typed where others see it.
        name: What the camera is to be called; without it, a name from the address.
        output: File to write the settings into, which must not exist.
    """
    probed = probe(address, SourceConfig())
    lines = settings_lines(probed, address, name or probed.source.name)
    if output is None:
        print(lines, end="")
        return 0
    try:
        write_new(output, lines.encode())
    except FileExistsError:
        raise OutputRefused(f"{output}: exists; name another file, or remove it") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputRefused(f"{output}: cannot be written ({reason})") from None
    print(f"{output}: written")
    return 0


def worker(
    *,
    listen: str | None = None,
    key: Path | None = None,
    allow: Path | None = None,
    model: Annotated[Path | None, Parameter(alias="-m")] = None,
    config: Path | None = None,
    assign: Annotated[tuple[str, ...], Parameter(name="--set", negative=())] = (),
) -> int:
    """Find boxes for clients on other hosts, until SIGTERM or Ctrl-C.

    A client names this worker under `remote` in its settings. What passes between them is
    encrypted, and only clients whose public key is allowed are served.

    Args:
        listen: Where clients come in, tcp://HOST:PORT; tcp://0.0.0.0:PORT is every address.
        key: The worker's secret key, made by `sightline keys`.
        allow: Public keys of the clients that may come in: a .pub file, or a folder of them.
        model: Weights to detect with, the same file that the clients name.
        config: Settings as YAML.
        assign: Any setting as name=value, for example clients=8 or model.precision=f32.
    """
    logging.basicConfig(format="sightline: %(message)s", level=logging.INFO)
    given = {"listen": listen, "key": key, "allow": allow, "model.weights": model}
    named = [f"{name}={json.dumps(str(v))}" for name, v in given.items() if v is not None]
    station = Station(load_settings(WorkerConfig, config, [*assign, *named]), build_engine)
    before: dict[int, Any] = {}

    def stop(_: int, __: FrameType | None) -> None:
        for number, handler in before.items():  # a second signal ends at once
            signal.signal(number, handler)
        station.stop()

    before.update({n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)})
    station.run()
    return 0


def keys(name: str, *, output: Annotated[Path, Parameter(alias="-o")] = Path()) -> int:
    """Make a pair of keys: NAME.key, which is secret, and NAME.pub for the other side.

    Args:
        name: Whom the keys are for, for example the name of this host.
        output: Folder to write them into.
    """
    secret, public = make_keys(name, output)
    print(f"{secret}: the secret key, which stays on this host")
    print(f"{public}: the public key, to be copied to the other side")
    return 0


def settings_of(config: Path | None, options: RunOptions, assign: Sequence[str]) -> PipelineConfig:
    """The file's settings, after assignments, after options."""
    settings = load_settings(PipelineConfig, config, [*assign, *options.overrides()])
    if options.gate is None:
        return settings
    gate = (settings.gate or GateConfig()) if options.gate else None  # as set up, where it is
    return settings.model_copy(update={"gate": gate})


def _run_until_signal(job: Job, *, quiet: bool) -> int | None:
    """Run the job; Ctrl-C and SIGTERM end it in order, a second one at once."""
    caught: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        caught.append(number)
        job.stop()

    before: dict[int, Any] = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        with Progress(job, shown=not quiet) as progress:
            job.run(progress.update)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return caught[0] if caught else None


def _print_faults(job: Job) -> None:
    """What is not complete, in four lines at most; a traceback only where our own code failed."""
    for trace in dict.fromkeys(state.trace for state in job.streams if state.trace):
        print(trace, file=sys.stderr, end="")
    faults = list(_faults(job))
    if job.fault:
        faults.insert(0, job.fault)
    if len(faults) > _FAULT_LINES:
        rest = len(faults) - _FAULT_LINES + 1
        faults[_FAULT_LINES - 1 :] = [f"and {rest} more, see {job.outputs.summary}"]
    for fault in faults:
        print(f"sightline: {fault}", file=sys.stderr)


def _faults(job: Job) -> Iterator[str]:
    """The fault of every stream; one that several share is told once."""
    shared = Counter(state.reason for state in job.streams if state.reason)
    for state in job.streams:
        count = shared.pop(state.reason, 0)
        if count:
            others = f" (and {count - 1} more sources)" if count > 1 else ""
            yield state.fault + others


def _plain(name: str, value: object) -> object:
    if name == "classes":
        return [part.strip() for part in str(value).split(",") if part.strip()]
    return str(value) if isinstance(value, Path) else value
