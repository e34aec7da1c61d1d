# SPDX-License-Identifier: Apache-2.0
"""What this machine can do: every finding with what it means for a run."""

import importlib
import os
import platform
import sys
from collections.abc import Callable

from model.processor import cpu_features
from pipeline.decoding.child import python_with_binding
from pipeline.decoding.gst_elements import elements_here
from pipeline.finding import Finding, importable
from pipeline.gpu_findings import cuda, cupy, kernels, nvdec, tensorrt


def examine() -> tuple[Finding, ...]:
    """Look at everything a run may use."""
    looks: tuple[Callable[[], Finding], ...] = (
        _python, _cpu, _openvino, _int8, _torch, _compiler, _onnx, _decoder, _opencv, _cache,
        cuda, cupy, kernels, nvdec, tensorrt, _gstreamer,
    )  # fmt: skip
    return tuple(look() for look in looks)


def _python() -> Finding:
    return Finding(
        name="python",
        present=sys.version_info >= (3, 11),
        detail=f"{platform.python_version()} on {platform.platform(terse=True)}; wanted 3.11 on",
    )


def _cpu() -> Finding:
    flags = cpu_features()
    known = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")
    found = ", ".join(flag for flag in known if flag in flags) or "none of the vector units we use"
    return Finding(
        name="cpu",
        present=True,
        detail=f"{len(os.sched_getaffinity(0))} usable cores of {os.cpu_count()}; {found}",
    )


def _openvino() -> Finding:
    if not importable("openvino"):
        return Finding(name="openvino", present=False, detail="pip install openvino")
    from model.engines.build import choose_engine
    from model.engines.openvino import choose_precision

    openvino = importlib.import_module("openvino")
    picked = choose_engine("auto")
    precision = "f16" if picked == "cuda" else choose_precision("auto")
    release = openvino.__version__.split("-")[0]
    return Finding(
        name="openvino",
        present=True,
        detail=f"{release}; engine auto picks {picked}, {precision}: {_why(picked, precision)}",
    )


def _why(picked: str, precision: str) -> str:
    if picked == "cuda":
        return "there is an NVIDIA GPU and what it takes"
    if precision == "bf16":
        return "the CPU multiplies bf16 in hardware, and it costs no AP that shows"
    return "no bf16 unit here"


def _int8() -> Finding:
    units = sorted(cpu_features() & {"amx_int8", "avx512_vnni", "avx_vnni"})
    present = importable("nncf") and importable("faster_coco_eval")
    speed = f"int8 units: {', '.join(units)}" if units else "no int8 unit here, so it may not pay"
    how = "sightline export makes an artefact and measures whether it pays; auto never picks int8"
    made = "" if present else "; making one needs nncf and faster-coco-eval (extra: int8)"
    return Finding(name="int8", present=present, optional=True, detail=f"{speed}; {how}{made}")


def _torch() -> Finding:
    if not importable("torch"):
        return Finding(name="torch", present=False, detail="pip install 'torch>=2.8,<2.14'")
    torch = importlib.import_module("torch")
    return Finding(name="torch", present=True, detail=f"{torch.__version__}; builds artefacts")


def _compiler() -> Finding:
    from model.engines.compiler import missing_compiler

    missing = missing_compiler()
    detail = missing or "g++ and Python's headers: --engine inductor and export --format aoti work"
    return Finding(name="compiler", present=missing is None, optional=True, detail=detail)


def _onnx() -> Finding:
    if not importable("onnxruntime"):
        detail = "not installed (extra: onnx); needed for --engine onnx and export --format onnx"
        return Finding(name="onnx", present=False, optional=True, detail=detail)
    runtime = importlib.import_module("onnxruntime")
    detail = f"ONNX Runtime {runtime.__version__}: --engine onnx works"
    return Finding(name="onnx", present=True, optional=True, detail=detail)


def _decoder() -> Finding:
    av = importlib.import_module("av")
    ffmpeg = av.ffmpeg_version_info
    encoder = "libx264" in av.codecs_available
    return Finding(
        name="ffmpeg",
        present=encoder,
        detail=f"{ffmpeg} in PyAV {av.__version__}; "
        + ("H.264 video can be written" if encoder else "no libx264: --save-video will fail"),
    )


def _opencv() -> Finding:
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError as error:
        hint = "apt-get install -y libgl1 libglib2.0-0"
        return Finding(name="opencv", present=False, detail=f"{error}; {hint}")
    return Finding(name="opencv", present=True, detail=cv2.__version__)


def _cache() -> Finding:
    from model.engines.cache import cache_folder

    folder = cache_folder()
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    writable = os.access(nearest, os.W_OK)
    return Finding(
        name="cache",
        present=writable,
        detail=f"{folder}: compiled models" + ("" if writable else " cannot be kept there"),
        optional=True,
    )


def _gstreamer() -> Finding:
    python = python_with_binding()
    detail = f"binding of {python}" if python else "no binding (extra: gstreamer); PyAV decodes"
    if (elements := elements_here()) is not None:
        detail += f"; on a GPU {' or '.join(elements.decoders)}"
    return Finding(name="gstreamer", present=python is not None, optional=True, detail=detail)
