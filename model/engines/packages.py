# SPDX-License-Identifier: Apache-2.0
"""Packages of code that AOTInductor compiles for one shape: made from a module, and loaded."""

from pathlib import Path

import torch
from torch import Tensor, nn

# what torch's own loader wraps; this one looks for no compiler
from torch._C._aoti import AOTIModelPackageLoader


def compile_package(module: nn.Module, examples: tuple[Tensor, ...], path: Path) -> None:
    """Compile a module for inputs like the examples, into a file that ends in .pt2.

    Raises:
        RuntimeError: torch cannot export or compile it.
        OSError: a tool or a header that it needs for this is missing.
    """
    with torch.no_grad():
        program = torch.export.export(module.eval(), examples)
        torch._inductor.aoti_compile_and_package(  # noqa: SLF001 - its public place
            program, package_path=str(path), inductor_configs={"freezing": True}
        )


def load_package(
    path: Path, *, device: int = -1, single_threaded: bool = False
) -> AOTIModelPackageLoader:
    """Load compiled code, after which the file is not needed any more.

    Args:
        path: The package.
        device: Index of a GPU; -1 for a processor.
        single_threaded: Leave out what lets several threads run it at once. That would ask whether
            a GPU has done its work, which must not be asked while a graph is captured.

    Raises:
        RuntimeError: torch refuses it.
    """
    return AOTIModelPackageLoader(str(path), "model", single_threaded, 1, device)
