# SPDX-License-Identifier: Apache-2.0
"""Results of a benchmark as tables for a reader."""

from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.bench.share import slow_part
from pipeline.bench.streams import Trial


def print_share(result: dict[str, Any]) -> None:
    """The pipeline against its bound, stage by stage."""
    console = Console()
    bound, pipeline = result["bound"], result["pipeline"]
    cores, model = result["cores"], result["model"]
    console.print(
        f"{result['clip']}; {model['scale']}, {model['engine']} {model['precision']}, "
        f"{model['input_shapes'][0][1]}x{model['input_shapes'][0][2]}; {result['outputs']}",
        f"{cores} cores, {result['cpu']}",
        sep="\n",
        highlight=False,
    )
    console.print(_alone(result["alone_cpu_ms"]))
    console.print(_inside(result["stages_ms"]))
    rate, share = pipeline["frames_per_s"], pipeline["share_of_bound"]
    console.print(
        f"bound     {_figure(bound['frames_per_s'])} frames/s: {cores} cores, "
        f"{bound['cpu_ms']['median']:.2f} ms a frame",
        f"pipeline  {_figure(rate)} frames/s: {share['median']:.0%} of the bound",
        f"slow part {slow_part(result)}",
        sep="\n",
        highlight=False,
    )


def trial_line(trial: Trial) -> str:
    """One number of streams in a line."""
    verdict = "carried" if trial.carried else "too many"
    where = f" on {trial.devices} devices" if trial.devices > 1 else ""
    return (
        f"{trial.streams:>3} streams{where}  {trial.frames_per_s:>6.1f} frames/s  "
        f"p50 {_seconds(trial.p50_s)}  p95 {_seconds(trial.p95_s)}  lost {trial.lost:>6.1%}  "
        f"least/most {trial.evenness:.2f}  {verdict}"
    )


def _alone(stages: dict[str, dict[str, float]]) -> Table:
    table = Table(title="each stage alone, at its best")
    for column in ("stage", "CPU ms a frame", "least", "most"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for name, times in stages.items():
        table.add_row(name, *(f"{times[key]:.2f}" for key in ("median", "min", "max")))
    return table


def _inside(stages: dict[str, dict[str, float]]) -> Table:
    table = Table(title="each stage's thread in the pipeline, ms a frame")
    for column in ("stage", "waits for input", "works", "waits for room", "its CPU"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for name, times in stages.items():
        keys = ("waiting_before", "work", "waiting_after", "thread_cpu")
        table.add_row(name, *(f"{times[key]:.2f}" for key in keys))
    return table


def _figure(times: dict[str, float]) -> str:
    return f"{times['median']:.1f} ({times['min']:.1f} to {times['max']:.1f})"


def _seconds(seconds: float | None) -> str:
    return "      -" if seconds is None else f"{seconds:.3f} s"
