# SPDX-License-Identifier: Apache-2.0
"""The subcommands `import`, `train` and `ship`: plain functions that print."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape

from model.card import count_values, read_header
from model.cli import groups


def import_(
    file: Path,
    *,
    output: Path,
    auxiliary: bool = False,
    licence: str = "",
    overwrite: bool = False,
) -> None:
    """Convert published weights into a Sightline weights file. Nothing in the file is run.

    Args:
        file: A checkpoint (.pt, .ckpt or .safetensors) of YOLOv9 as the official code, ultralytics
            or MultimediaTechLab's YOLO writes it; of a training form the main branch is taken.
        output: The weights file to write.
        auxiliary: Keep the auxiliary branch of a training form, to go on training. Such a file
            does not run.
        licence: The licence of weights whose file does not state one.
        overwrite: Replace the output if it exists.
    """
    from model.importing import import_weights
    from training.importing import import_guided

    convert = import_guided if auxiliary else import_weights
    card = convert(file, output, licence=licence, overwrite=overwrite)
    lines = [
        f"{file}: {card.source_layout}",
        f"{output}: size {card.scale}, {card.form}, {len(card.classes)} classes, "
        f"{count_values(read_header(output)):,} parameters, class branch {card.class_width} "
        f"channels, box branch {groups(card)}, licence {card.licence}",
    ]
    if card.licence == "unknown":
        lines.append("the file states no licence; if you know it, state it with --licence")
    console = Console(soft_wrap=True)
    for line in lines:
        console.print(escape(line), highlight=False)


def train(
    data: Path,
    *,
    model: str | None = None,
    recipe: Path | None = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = (),
    output: Path = Path("runs/train"),
    resume: bool = False,
) -> None:
    """Train a detector from a data.yaml to weights that `sightline run` takes.

    Several GPUs train together when torchrun starts it: torchrun --nproc-per-node 8 sightline.py
    train data.yaml ...

    Args:
        data: The data set: YOLO layout or COCO JSON, named by a data.yaml.
        model: A size (T, S, M, C, E) to train from random weights, or a weights file to go on
            from; the recipe's if not given, or T.
        recipe: A YAML file of settings; configs/training has some.
        set_: Change a setting, as in --set epochs=50.
        output: A folder for weights, checkpoint and results.
        resume: Go on with the training that is there, with the same data and recipe.
    """
    from model.config import load_settings
    from training.job import train as train_job
    from training.recipe import Recipe

    chosen = (f"model={model}",) if model else ()
    settings = load_settings(Recipe, recipe, (*set_, *chosen))
    weights = train_job(data, settings, output, resume=resume, shown=True)
    if weights is not None:
        console = Console(soft_wrap=True)
        console.print(escape(f"{weights}: run it with"), highlight=False)
        console.print(escape(f"  sightline run VIDEO --model {weights}"), highlight=False)


def ship(
    weights: Path,
    *,
    notes: Path,
    evaluation: Path,
    output: Path,
    overwrite: bool = False,
) -> None:
    """Make the file that is shipped from weights of our own training: float16, with a whole card.

    Args:
        weights: What `sightline train` deployed.
        notes: A YAML file of what no program can find out; configs/release has one.
        evaluation: What `sightline evaluate --json` printed of these weights.
        output: The file to write, NAME.safetensors.
        overwrite: Replace the output if it exists.
    """
    from model.config import load_settings
    from model.released import ReleaseNotes
    from training.shipping import ship as ship_weights

    read = load_settings(ReleaseNotes, notes)
    card = ship_weights(weights, read, evaluation, output, overwrite=overwrite)
    assert card.released is not None
    overall = card.released.measured.overall
    print(
        f"{output}: {output.stat().st_size:,} bytes, AP {overall.ap:.3f}, AP50 {overall.ap50:.3f}, "
        f"score {card.released.min_score:g}, licence {card.licence}"
    )
