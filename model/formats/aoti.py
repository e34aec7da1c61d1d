# SPDX-License-Identifier: Apache-2.0
"""A package of code that AOTInductor compiles for one shape: it runs without a compiler."""

import platform
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from model.built import Built, Needs
from model.card import Card
from model.engines.compiler import prepare_compiler
from model.engines.direct import InputShape, first_line
from model.engines.machine import release
from model.engines.packages import compile_package
from model.errors import EngineError
from model.files import write_whole
from model.package import add_card, package_digest
from model.pixels import PixelDetector
from model.processor import cpu_features
from model.weights import load_detector

COMPILED_FOR = ("avx", "fma", "f16c", "amx", "bmi", "asimd", "sve")
"""Starts of the names of what compilers use where a processor has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AotiPackage:
    """A zip file that torch loads."""

    built: Built
    content: bytes

    @classmethod
    def make(cls, weights: Path, input_shape: InputShape) -> "AotiPackage":
        """Compile the detector in a weights file."""
        prepare_compiler("--format aoti")
        detector, _ = load_detector(weights)
        # torch's own annotations lack this overload
        channels_last = detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        example = torch.zeros(input_shape, dtype=torch.uint8)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "detector.pt2"
            try:
                compile_package(PixelDetector(channels_last), (example,), path)
            except RuntimeError as failure:
                raise EngineError(
                    f"{weights}: torch cannot compile this: {first_line(failure)}"
                ) from failure
            built = Built(
                engine="aoti",
                graph_sha256=package_digest(path),
                input_shape=input_shape,
                made_with={"torch": version("torch")},
                needs=Needs(
                    machine=platform.machine(),
                    features=tuple(sorted(f for f in cpu_features() if f.startswith(COMPILED_FOR))),
                    torch=release(version("torch")),
                ),
            )
            return cls(built=built, content=path.read_bytes())

    def save(self, path: Path, card: Card) -> None:
        with tempfile.TemporaryDirectory() as folder:
            package = Path(folder) / "detector.pt2"
            package.write_bytes(self.content)
            add_card(package, card.model_dump_json())
            write_whole(path, package.read_bytes(), "this artefact")
