# SPDX-License-Identifier: Apache-2.0
"""sightline bench: parse, measure, print."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from pipeline.bench.report import print_share, trial_line
from pipeline.bench.share import measure
from pipeline.bench.streams import MOST_LOST, Trial, most_streams
from pipeline.cli import RunOptions, settings_of
from pipeline.config import PipelineConfig
from pipeline.decoding.inputs import Source, find_sources
from pipeline.errors import SourceUnreadable
from pipeline.job import settled

_FRAMES = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """How it is measured.

    Attributes:
        runs: Runs that the medians are of.
        streams: Find the highest number of live streams.
        counts: Numbers of streams to try first.
        max_latency: Seconds from capture to tracks that 95 of 100 frames may take.
        seconds: How long each number of streams is measured.
        json: Print the result as JSON and nothing else.
    """

    runs: Annotated[int, Parameter(validator=Number(gte=1))] = 5
    streams: Annotated[bool, Parameter(negative=())] = False
    counts: str = "1,2,4,8,16"
    max_latency: Annotated[float, Parameter(validator=Number(gt=0))] = 0.5
    seconds: Annotated[float, Parameter(validator=Number(gte=1))] = 10.0
    json: Annotated[bool, Parameter(negative=())] = False


def bench(
    file: str,
    *,
    how: Annotated[BenchOptions | None, Parameter(name="*")] = None,
    options: Annotated[RunOptions | None, Parameter(name="*")] = None,
    config: Path | None = None,
    assign: Annotated[tuple[str, ...], Parameter(name="--set", negative=())] = (),
) -> int:
    """Measure this machine: each stage alone, and the pipeline against what they allow.

    With --streams, find how many cameras it carries: the file is played as so many of them, and
    frames must come to tracks within --max-latency (95 of 100) with 1 % of them lost at most.

    Args:
        file: A video like those that will be looked at.
        how: How it is measured.
        options: Settings that have an option of their own; --save-video to measure with an MP4.
        config: Settings as YAML.
        assign: Any setting as name=value, for example model.precision=f32.
    """
    logging.basicConfig(format="sightline: %(message)s", level=logging.ERROR)
    how = how or BenchOptions()
    settings = settled(settings_of(config, options or RunOptions(), assign))
    source = _one_file(file)
    result = _streams(settings, source, how) if how.streams else _share(settings, source, how)
    if how.json:
        print(json.dumps(result, indent=2))
    return 0


def _share(settings: PipelineConfig, source: Source, how: BenchOptions) -> dict[str, Any]:
    limit = settings.source.limit or _FRAMES
    limited = settings.source.model_copy(update={"limit": limit})
    result = measure(settings.model_copy(update={"source": limited}), source, how.runs)
    if not how.json:
        print_share(result)
    return result


def _streams(settings: PipelineConfig, source: Source, how: BenchOptions) -> dict[str, Any]:
    result = most_streams(
        settings,
        source,
        counts=_numbers(how.counts),
        max_latency_s=how.max_latency,
        seconds=how.seconds,
        on_trial=_quiet if how.json else _print_trial,
    )
    if not how.json:
        print(
            f"{result['most_streams']} streams are carried: p95 within {how.max_latency:g} s, "
            f"at most {MOST_LOST:.0%} lost"
        )
    return result


def _one_file(named: str) -> Source:
    sources = find_sources([named])
    if len(sources) != 1 or sources[0].kind != "file":
        raise SourceUnreadable(f"{named}: bench measures by one video file; name one")
    return sources[0]


def _numbers(counts: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in counts.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise SourceUnreadable(f"--counts: expected numbers such as 1,2,4, got {counts!r}")
    return numbers


def _print_trial(trial: Trial) -> None:
    print(trial_line(trial), flush=True)


def _quiet(_: Trial) -> None:
    pass
