# SPDX-License-Identifier: Apache-2.0
"""The subcommand `import`: a plain function that prints."""

from pathlib import Path

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
