# SPDX-License-Identifier: Apache-2.0
"""What the card of a float artefact says: what runs it, where, on what, and how near to eager."""

from typing import Annotated, Final, Literal

from pydantic import Field

from model.config import Ratio, Settings

ArtefactEngine = Literal["openvino", "onnx", "aoti"]
"""Engines that artefacts are made for."""

MAX_BOX_PX: Final = 0.05
"""Farthest a side of a box may lie from where eager torch puts it."""
MAX_SCORE: Final = 1e-3
"""Most that a score may differ from eager torch's."""


class Preprocessing(Settings):
    """The picture that the graph takes, for who prepares it elsewhere."""

    layout: Literal["NHWC"] = "NHWC"
    dtype: Literal["uint8"] = "uint8"
    colour: Literal["RGB"] = "RGB"
    scaling: Literal["1/255, inside the graph"] = "1/255, inside the graph"
    resize: Literal["letterbox, centred, aspect kept"] = "letterbox, centred, aspect kept"
    filter: Literal["triangle, antialiased"] = "triangle, antialiased"
    """PIL's BILINEAR and swscale's are this one; OpenCV's INTER_LINEAR is not."""
    pad_value: Literal[114] = 114
    stride: Literal[32] = 32
    """Height and width are whole multiples of this."""


class Accuracy(Settings):
    """Average precision on labelled images, both sides measured alike."""

    data: str
    images: int
    image_size: int
    eager_ap: Ratio
    artefact_ap: Ratio


class Parity(Settings):
    """How far the artefact is from eager float32 torch on pictures made from a seed."""

    seed: int
    shapes: tuple[tuple[int, int, int], ...]
    """Batch, height and width of what both were given."""
    box_px: Annotated[float, Field(ge=0)]
    """Largest difference of any side of any box, in canvas pixels."""
    score: Annotated[float, Field(ge=0)]
    """Largest difference of any score."""
    detections: int | None = None
    """Where suppression is inside: boxes it kept, each the one that ours keeps."""
    accuracy: Accuracy | None = None

    def sentence(self) -> str:
        """Say how near the artefact is."""
        shapes = ", ".join("x".join(map(str, shape)) for shape in self.shapes)
        text = (
            f"at most {self.box_px:.2g} px and {self.score:.2g} of score from eager torch "
            f"on made pictures ({shapes})"
        )
        if self.detections is not None:
            text += f"; its {self.detections} detections there are those of our suppression"
        if self.accuracy is None:
            return text
        measured = self.accuracy
        return (
            f"{text}; AP {measured.artefact_ap:.4f} on {measured.images} images of "
            f"{measured.data} at {measured.image_size} px, eager {measured.eager_ap:.4f}"
        )


class Needs(Settings):
    """What a machine must have to run compiled code."""

    machine: str
    """Architecture, e.g. `x86_64`."""
    features: tuple[str, ...]
    """Of the processor, as the system names them, e.g. `avx512f`."""
    torch: str
    """Major and minor version it was compiled with."""


class Nms(Settings):
    """Suppression inside the graph, with its limits."""

    min_score: Ratio
    max_iou: Ratio
    max_boxes: int
    class_aware: bool


class Built(Settings):
    """How a float artefact was made, and what it takes to run it."""

    engine: ArtefactEngine
    precision: Literal["f32"] = "f32"
    graph_sha256: str
    """Of what is run, so that damage is noticed."""
    input_shape: tuple[int, int, int, int]
    """B, H, W, 3; -1 stands for any."""
    made_with: dict[str, str]
    """Versions of the libraries that made it."""
    preprocessing: Preprocessing = Preprocessing()
    nms: Nms | None = None
    needs: Needs | None = None
    parity: Parity | None = None
    """Absent only while it is being measured."""
