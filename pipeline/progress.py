# SPDX-License-Identifier: Apache-2.0
"""What a person sees while a job runs, and the lines it closes with."""

import time
from collections.abc import Iterator
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

from pipeline.job import Job
from pipeline.metrics import SKIPPED
from pipeline.streams import StreamState

_REFRESH_S = 0.2


class Progress:
    """A bar for each stream that runs, on a terminal; nothing elsewhere."""

    def __init__(self, job: Job, *, shown: bool) -> None:
        self._job = job
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[fps]:6.1f} fps"),
            TextColumn("dropped {task.fields[dropped]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            auto_refresh=False,
        )
        self._shown = shown and self._bars.console.is_terminal
        self._tasks: dict[str, TaskID] = {}
        self._next_s = 0.0

    def __enter__(self) -> "Progress":
        if self._shown:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._shown:
            self._next_s = 0.0
            self.update()
            self._bars.stop()

    def update(self) -> None:
        """Show how far each stream is; cheap to call often."""
        if not self._shown or time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + _REFRESH_S
        for state in self._job.streams:
            if state.started_s is not None:
                self._show(state)
        self._bars.refresh()

    def _show(self, state: StreamState) -> None:
        name = state.source.name
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=None, fps=0.0, dropped=0)
        counters = state.counters
        done = counters["decoded"] - counters.num_in_flight
        total = state.facts.num_frames if state.facts else 0
        limit = self._job.config.source.limit
        if limit is not None:
            total = min(total, limit) if total else limit
        self._bars.update(
            self._tasks[name],
            completed=done,
            total=total or (done if state.ended_s else None),
            fps=done / state.elapsed_s if state.elapsed_s else 0.0,
            dropped=counters.num_dropped,
        )


def closing_lines(job: Job) -> Iterator[str]:
    """A line for each stream, and one for all where there are several."""
    for state in job.streams:
        counters = state.counters
        if state.started_s is None or (state.reason and not counters["decoded"]):
            continue
        fps = counters["decoded"] / state.elapsed_s if state.elapsed_s else 0.0
        parts = [f"{counters['decoded']} frames", f"{counters['tracked']} tracked"]
        for name in SKIPPED:
            if counters[name]:
                by = name.removeprefix("skipped_").replace("_", "-")
                parts.append(f"{counters[name]} skipped by {by}")
        parts.append(f"{counters.num_dropped} dropped")
        if counters["undecodable"]:
            parts.append(f"{counters['undecodable']} packets undecodable")
        parts.append(f"{state.elapsed_s:.1f} s, {fps:.1f} frames/s")
        outputs = " ".join(state.outputs)
        yield f"{state.source.name}: {', '.join(parts)}" + (f" -> {outputs}" if outputs else "")
    if len(job.streams) > 1:
        frames = sum(counters["decoded"] for counters in job.counters.values())
        rate = frames / job.elapsed_s if job.elapsed_s else 0.0
        whole = sum(state.complete for state in job.streams)
        yield (
            f"{whole} of {len(job.streams)} sources complete, {frames} frames in "
            f"{job.elapsed_s:.1f} s, {rate:.1f} frames/s"
        )
