# SPDX-License-Identifier: Apache-2.0
"""What the card of a quantised artefact says: how it was made, what it cost, what it gained."""

from typing import Annotated, Final, Literal

from pydantic import Field

from model.config import Settings

PAYS_FROM: Final = 1.05
"""A gain in speed below this is noise."""


class Check(Settings):
    """How well a quantised detector finds what it should, both sides measured alike."""

    kind: Literal["accuracy", "agreement"]
    """Average precision against labelled boxes, or against the float detector's own."""
    data: str
    images: int
    image_size: int
    float_ap: float
    """Of the exact float32 detector; 1 where its boxes are the truth."""
    auto_ap: float
    """Of the float detector in the precision that `auto` picked on the machine that measured."""
    int8_ap: float

    def sentence(self) -> str:
        """Say what was found, and what that does not say."""
        where = f"{self.images} images of {self.data} at {self.image_size} px"
        if self.kind == "agreement":
            return (
                f"agreement with the float32 detector's own boxes on {where}: {self.int8_ap:.3f} "
                f"(float as auto runs it: {self.auto_ap:.3f}). This is not accuracy: nothing is "
                "labelled; name labelled images with --data to measure that"
            )
        return (
            f"accuracy: AP {self.int8_ap:.4f} on {where}, float32 {self.float_ap:.4f} "
            f"(as auto runs it: {self.auto_ap:.4f})"
        )


class Speed(Settings):
    """What a frame cost on the machine that made the file; medians of alternating runs."""

    cpu: str
    cores: int
    canvas_hw: tuple[int, int]
    float_precision: str
    """What `auto` picked for the float detector."""
    float_ms: Annotated[float, Field(gt=0)]
    """Time a frame, every core busy."""
    int8_ms: Annotated[float, Field(gt=0)]
    float_cpu_ms: float
    """Processor time a frame, of all cores together."""
    int8_cpu_ms: float

    def sentence(self) -> str:
        """Say whether int8 pays."""
        gain = self.float_ms / self.int8_ms
        verdict = "int8 pays" if gain >= PAYS_FROM else "int8 does not pay"
        height, width = self.canvas_hw
        return (
            f"speed: {verdict} on {self.cpu} ({self.cores} cores): {self.int8_ms:.2f} ms a frame "
            f"of {width}x{height} against {self.float_ms:.2f} in {self.float_precision}, "
            f"{gain:.2f} times as fast (processor time {self.int8_cpu_ms:.2f} against "
            f"{self.float_cpu_ms:.2f} ms)"
        )


class Quantisation(Settings):
    """How an artefact was quantised, and what that cost and gained."""

    precision: Literal["int8"] = "int8"
    graph_sha256: str
    """Of the tensors that hold the graph, so that damage is noticed."""
    frames: Annotated[int, Field(ge=1)]
    """Pictures it was calibrated on."""
    image_size: int
    """Long side of those pictures on the network's canvas."""
    nncf: str
    openvino: str
    """Versions of what made it."""
    check: Check | None = None
    speed: Speed | None = None
