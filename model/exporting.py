# SPDX-License-Identifier: Apache-2.0
"""Export: quantise on given frames, check what that costs, time what it gains, write one file.

An artefact that is checked against labelled boxes and falls too far is not written.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from jaxtyping import UInt8
from pydantic import ValidationError

from model.artefact import graph_digest, save_artefact
from model.average_precision import LabelledImages, require_evaluator
from model.card import Card, read_card
from model.checking import check_accuracy, check_agreement
from model.comparing import time_side_by_side
from model.config import ModelConfig, describe_faults
from model.errors import ConfigError, DataError, PrecisionLost, WeightsError
from model.outputs import refuse_output
from model.quantisation import Check, Quantisation
from model.quantising import quantise, require_quantiser, serialise

HELD_OUT: Final = 5
"""One of so many frames is kept from calibration to check on, where nothing is labelled."""

MAX_AP_LOSS: Final = 0.01

Canvases = Sequence[UInt8[np.ndarray, "H W 3"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to export, and what it may cost."""

    weights: Path
    output: Path
    image_size: int = 640
    """Long side of the canvas at which it is checked and timed; it runs at any."""
    max_ap_loss: float = MAX_AP_LOSS
    overwrite: bool = False

    def check(self) -> Card:
        """Refuse what cannot end well before anything is worked on; return the weights' card."""
        try:
            ModelConfig(image_size=self.image_size)
        except ValidationError as invalid:
            raise ConfigError(f"export: {describe_faults(invalid)}") from None
        card = read_card(self.weights)
        if card.form in ("quantised", "built"):
            raise WeightsError(f"{self.weights}: is {card.form} already; give the float weights")
        refuse_output(self.output, self.weights, overwrite=self.overwrite)
        require_quantiser()
        require_evaluator()
        return card


def export(
    request: Request,
    canvases: Canvases,
    labelled: LabelledImages | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Card:
    """Write an int8 artefact and return its card.

    Args:
        request: What to export.
        canvases: Letterboxed pictures of what the detector will see.
        labelled: Images to check average precision on. Without them, some of the canvases are
            held out, and int8 is checked against what the float detector finds there.
        report: Told what is being done.

    Raises:
        PrecisionLost: average precision falls by more than it may; nothing is written.
        DataError: there are too few canvases, or nothing to check in them.
    """
    float_card = request.check()
    used, held_out = (canvases, ()) if labelled else hold_out(canvases)
    if not used:
        raise DataError(f"export: {len(canvases)} frames are too few to calibrate on")
    report(f"quantising on {len(used)} frames")
    text, numbers = serialise(quantise(request.weights, used))
    quantisation = Quantisation(
        graph_sha256=graph_digest(text, numbers),
        frames=len(used),
        image_size=request.image_size,
        nncf=version("nncf"),
        openvino=version("openvino"),
    )
    with TemporaryDirectory() as folder:
        trial = Path(folder) / "int8.safetensors"
        save_artefact(trial, text, numbers, _quantised(float_card, quantisation))
        report("checking what int8 finds")
        if labelled:
            check = check_accuracy(request.weights, trial, labelled, request.image_size)
        else:
            check = check_agreement(request.weights, trial, held_out)
        _refuse_loss(request, check)
        report("timing int8 beside float")
        speed = time_side_by_side(request.weights, trial, _commonest(canvases))
    measured = quantisation.model_copy(update={"check": check, "speed": speed})
    card = _quantised(float_card, measured)
    save_artefact(request.output, text, numbers, card)
    return card


def hold_out(canvases: Canvases) -> tuple[Canvases, Canvases]:
    """Split into what is calibrated on and what is checked on, which is all of one shape."""
    if len(canvases) < 2:
        return (), ()
    shape = _commonest(canvases)[0].shape
    alike = [place for place, canvas in enumerate(canvases) if canvas.shape == shape]
    wanted = min(-(-len(canvases) // HELD_OUT), -(-len(alike) // 2), len(canvases) - 1)
    held = {alike[place * len(alike) // wanted] for place in range(wanted)}
    used = [canvas for place, canvas in enumerate(canvases) if place not in held]
    return used, [canvases[place] for place in sorted(held)]


def _commonest(canvases: Canvases) -> Canvases:
    """Return the canvases of the shape that most have."""
    ((shape, _),) = Counter(canvas.shape for canvas in canvases).most_common(1)
    return [canvas for canvas in canvases if canvas.shape == shape]


def _quantised(card: Card, quantisation: Quantisation) -> Card:
    changes: dict[str, Any] = {"form": "quantised", "dtype": "int8", "quantisation": quantisation}
    return card.model_copy(update=changes)


def _refuse_loss(request: Request, check: Check) -> None:
    loss = check.float_ap - check.int8_ap
    if check.kind == "accuracy" and loss > request.max_ap_loss:
        raise PrecisionLost(
            f"{request.output}: not written: AP on {check.data} at {check.image_size} px falls "
            f"from {check.float_ap:.4f} to {check.int8_ap:.4f}, by {loss:.4f}, more than "
            f"--max-ap-loss {request.max_ap_loss:g}"
        )
