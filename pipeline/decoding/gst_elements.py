# SPDX-License-Identifier: Apache-2.0
"""What decodes on an NVIDIA GPU in GStreamer, and how a pipeline is made to use it, or not to.

Which decoder a pipeline gets GStreamer decides, by rank: those of the GPU get the highest, or none
at all, as present versions take them unasked where they are. That one of them really decodes is
made sure by what follows it, which takes only pictures in the GPU's memory: no other decoder gives
these.

With a GPU this has never run.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pipeline.decoding.child import has_element

_RANKS = "GST_PLUGIN_FEATURE_RANK"
_DEVICES = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuElements:
    """Elements that go together on one kind of machine."""

    decoders: tuple[str, ...]
    gives: str
    """What their pictures are, and those of no other decoder."""
    download: str
    """Brings them to the host's memory."""

    def include(self, element: str) -> bool:
        """Whether an element of a pipeline, by the name it was given there, is one of them."""
        return element.startswith((*self.decoders, self.download.split()[0]))


ELEMENTS: Final[tuple[GpuElements, ...]] = (
    GpuElements(
        decoders=("nvh264dec", "nvh265dec"),
        gives="video/x-raw(memory:CUDAMemory)",
        download="cudadownload",
    ),
    GpuElements(  # of a Jetson
        decoders=("nvv4l2decoder",),
        gives="video/x-raw(memory:NVMM)",
        download="nvvidconv",
    ),
)
"""The first that a machine has are used."""


@dataclass(frozen=True, slots=True)
class OnGpu:
    """How a pipeline decodes on a GPU."""

    elements: GpuElements
    device: int

    @property
    def description(self) -> str:
        """What follows the decoder."""
        return f"{self.elements.gives} ! {self.elements.download}"


def elements_here() -> GpuElements | None:
    """The elements that this machine's GStreamer has; it is asked anew each time."""
    for elements in ELEMENTS:
        if has_element(elements.download.split()[0]) and any(map(has_element, elements.decoders)):
            return elements
    return None


def environment_for(gpu: OnGpu | None) -> Mapping[str, str]:
    """Under which a pipeline decodes on a GPU, or on none."""
    wanted = () if gpu is None else gpu.elements.decoders
    known = (name for elements in ELEMENTS for name in elements.decoders)
    ranks = [f"{name}:{'MAX' if name in wanted else 'NONE'}" for name in known]
    if _RANKS in os.environ:
        ranks.insert(0, os.environ[_RANKS])
    environment = {_RANKS: ",".join(ranks)}
    if gpu is not None and gpu.device:  # without it the elements take the first
        environment[_DEVICES] = _as_cuda_knows(gpu.device)
    return environment


def _as_cuda_knows(device: int) -> str:
    """What a child that is to see one device calls it, which this process knows by a number."""
    visible = os.environ.get(_DEVICES, "").split(",")
    return visible[device] if device < len(visible) else str(device)
