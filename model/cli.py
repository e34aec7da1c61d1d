# SPDX-License-Identifier: Apache-2.0
"""The subcommands `models` and `fetch`: plain functions that print."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from model.built import Built
from model.card import Card, count_values, read_card, read_header
from model.catalogue import CATALOGUE, PublishedFile
from model.figures import FIGURES, Cost
from model.quantisation import Quantisation
from model.released import Released
from model.shipped import DEFAULT, find_weights, named_models


def models(file: Path | None = None) -> None:
    """List the models and sizes of the detector, or say what a weights file holds.

    Args:
        file: A Sightline weights file, an artefact of export, or the name of a model.
    """
    if file is not None:
        Console().print(_contents(find_weights(file)))
        return
    if found := named_models():
        Console().print(_named(found))
    Console().print(_sizes())


def _named(found: Mapping[str, Path]) -> Table:
    table = Table(
        title="models here, for --model NAME",
        caption="score: what boxes are kept from unless --min-score says otherwise\n"
        f"without --model, {DEFAULT} is taken",
        title_justify="left",
        caption_justify="left",
    )
    for column in ("name", "size", "classes", "AP", "score", "licence"):
        table.add_column(column, justify="right" if column in ("AP", "score") else "left")
    for name, path in found.items():
        card = read_card(path)
        ap, score = "-", "-"
        if card.released:
            measured = card.released.measured
            ap, score = f"{measured.overall.ap:.3f}", f"{card.released.min_score:.2f}"
        cells = (name, card.scale, classes_of(card), ap, score, card.licence)
        table.add_row(*map(escape, cells))
    return table


def classes_of(card: Card) -> str:
    """Return the names of a detector's first classes."""
    return ", ".join(card.classes[:5]) + (", ..." if len(card.classes) > 5 else "")


def _sizes() -> Table:
    table = Table(
        caption="fused runs, unfused trains; 80 classes, 640 px\n"
        "AP on COCO val2017 as published, in percent",
        caption_justify="left",
    )
    for column in ("size", "form", "parameters", "GFLOPs", "AP"):
        table.add_column(column, justify="left" if column in ("size", "form") else "right")
    for scale, figures in FIGURES.items():
        ap = f"{figures.published_ap:.1f}"
        table.add_row(scale, "fused", *_cost(figures.fused), ap)
        table.add_row("", "unfused", *_cost(figures.unfused), "", end_section=True)
    return table


def _cost(cost: Cost) -> tuple[str, str]:
    return f"{cost.parameters / 1e6:.2f} M", f"{cost.gflops:.1f}"


def _contents(file: Path) -> Table:
    card = read_card(file)
    table = Table(show_header=False, title=escape(str(file)))
    table.add_column()
    table.add_column(overflow="fold")
    rows = {
        "size": card.scale,
        "form": card.form,
        "values": _values(file, card),
        "classes": f"{len(card.classes)}: {classes_of(card)}",
        "class branch": f"{card.class_width} channels",
        "box branch": groups(card),
        "trained at": f"{card.image_size} px",
        "source": card.source,
        "source SHA-256": card.source_sha256 or "unknown",
        "source layout": card.source_layout or "unknown",
        "licence": card.licence,
    }
    if card.trained:
        rows |= {"trained on": card.trained.sentence(), "commit": card.trained.commit or "unknown"}
    if card.released:
        rows |= _released(card.released)
    if card.quantisation:
        rows |= _quantised(card.quantisation)
    if card.built:
        rows |= _built(card.built)
    for name, value in rows.items():
        table.add_row(name, escape(value))
    return table


def _released(released: Released) -> dict[str, str]:
    measured = released.measured
    sizes = ("ap_small", "ap_medium", "ap_large")
    by_class = (
        f"{name} {row.ap:.3f} ({' / '.join(_figure(getattr(row, size)) for size in sizes)})"
        for name, row in measured.classes.items()
    )
    overall, worth = measured.overall, [row for row in measured.calibration if row.boxes]
    return {
        "name": released.name,
        "data": "\n".join(f"{source.name}, {source.licence}" for source in released.data),
        "command": released.command,
        "measured on": f"{measured.split}, {measured.images} images, {measured.image_size} px, "
        f"{measured.protocol}",
        "AP": f"{overall.ap:.3f}, AP50 {overall.ap50:.3f}, AP75 {overall.ap75:.3f}",
        "AP (S / M / L)": "\n".join(by_class),
        "calibration": "\n".join(
            f"score {row.score:.2f}: {row.precision:.2f} of {row.boxes:,} boxes are right"
            for row in worth
        ),
        "recommended score": f"{released.min_score:.2f}",
        "weaknesses": "\n".join(released.weaknesses),
    }


def _figure(value: float) -> str:
    return f"{value:.3f}" if value >= 0 else "-"


def groups(card: Card) -> str:
    """Return the groups of the head's box branch, in words."""
    return "1 group" if card.box_groups == 1 else f"{card.box_groups} groups"


def _values(file: Path, card: Card) -> str:
    if card.built and card.built.engine != "openvino":
        return f"{file.stat().st_size:,} bytes for engine {card.built.engine}"
    graph = card.form in ("quantised", "built")
    unit = "bytes, an OpenVINO graph" if graph else f"({card.dtype})"
    return f"{count_values(read_header(file)):,} {unit}"


def _built(built: Built) -> dict[str, str]:
    batch, height, width, _ = ("any" if side == -1 else str(side) for side in built.input_shape)
    made_with = ", ".join(f"{name} {version}" for name, version in built.made_with.items())
    rows = {
        "engine": f"{built.engine}, {built.precision}",
        "batch": batch,
        "canvas": "any, of multiples of 32" if height == "any" else f"{height} x {width}",
        "made with": made_with,
        "takes": "; ".join(f"{name} {value}" for name, value in built.preprocessing),
    }
    if built.nms:
        rows["suppression"] = "; ".join(f"{name} {value}" for name, value in built.nms)
    if built.needs:
        needs = built.needs
        rows["needs"] = f"{needs.machine}, torch {needs.torch}, {' '.join(needs.features)}"
    if built.parity:
        rows["parity"] = built.parity.sentence()
    return rows


def _quantised(quantisation: Quantisation) -> dict[str, str]:
    rows = {
        "precision": quantisation.precision,
        "calibrated on": f"{quantisation.frames} frames at {quantisation.image_size} px",
        "made with": f"nncf {quantisation.nncf}, openvino {quantisation.openvino}",
    }
    if quantisation.check:
        rows["check"] = quantisation.check.sentence()
    if quantisation.speed:
        rows["speed"] = quantisation.speed.sentence().removeprefix("speed: ")
    return rows


def fetch(
    name: str | None = None,
    *,
    accept_licence: Annotated[bool, Parameter(negative=())] = False,
    overwrite: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Download official weights and convert them, for --model NAME; or list what can be had.

    A download that was cut is gone on with. Nothing in the file is run.

    Args:
        name: What is wanted.
        accept_licence: Accept its licence, which is asked for once.
        overwrite: Fetch it anew if it is here.
    """
    from model import fetching

    console = Console(soft_wrap=True, highlight=False)
    if name is None:
        console.print(_published())
        return
    file = fetching.find_published(name)
    if accept_licence or (not fetching.is_accepted(file) and _asked(console, file)):
        fetching.accept(file)
    with _bar() as bar:
        task = bar.add_task(file.name, total=None)
        path = fetching.fetch(
            file,
            overwrite=overwrite,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    card = read_card(path)
    checked = "as published" if file.sha256 else "recorded; none is published to compare it with"
    console.print(f"{file.file_name}: SHA-256 {card.source_sha256} ({checked})")
    console.print(f"{path}: size {card.scale}, {len(card.classes)} classes", markup=False)
    console.print(f"run it with: sightline run VIDEO --model {file.name}", markup=False)


def _bar() -> Progress:
    """Show how far a download is, on the error output, so that what is printed can be read on."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _asked(console: Console, file: PublishedFile) -> bool:
    """Show a licence to whoever sits at the terminal, and ask; elsewhere nobody can answer."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    console.print(f"{file.name} is published by {file.publisher} under {file.licence}")
    return console.input("accept this licence? (y/N) ").strip().lower() in ("y", "yes")


def _published() -> Table:
    from model.fetching import fetched_path

    table = Table(caption="sightline fetch NAME", caption_justify="left")
    for column in ("name", "what", "licence", "bytes", "here"):
        table.add_column(column)
    for file in CATALOGUE.values():
        size = f"{file.size_bytes:,}" if file.size_bytes else "not published"
        here = "yes" if fetched_path(file).exists() else "no"
        table.add_row(file.name, file.about, f"{file.licence}, {file.publisher}", size, here)
    return table
