# SPDX-License-Identifier: Apache-2.0
"""What this machine's NVIDIA GPU can do. Where there is none, CuPy and its decoder are not touched.

None of these findings was ever made on a machine with a GPU.
"""

import importlib
from fractions import Fraction
from typing import TYPE_CHECKING

from model.cuda.presence import ask_driver, num_devices, what_lacks
from pipeline.finding import Finding, importable

if TYPE_CHECKING:
    import av


def cuda() -> Finding:
    driver = ask_driver()
    if driver.num_devices == 0:
        detail = f"no NVIDIA GPU: {driver.fault}; the CPU does the work"
        return Finding(name="cuda", present=False, optional=True, detail=detail)
    lacking = what_lacks()
    if lacking is not None:
        detail = f"{driver.num_devices} of NVIDIA's GPUs; --engine cuda needs {lacking}"
        return Finding(name="cuda", present=False, optional=True, detail=detail)
    torch = importlib.import_module("torch")
    known = [torch.cuda.get_device_properties(place) for place in range(driver.num_devices)]
    cards = ", ".join(f"{card.name} ({card.total_memory >> 30} GiB)" for card in known)
    where = "there" if len(known) == 1 else "on all of them (gpu.devices), each stream on one"
    detail = f"{cards}; CUDA {torch.version.cuda}: --engine cuda runs {where}"
    return Finding(name="cuda", present=True, optional=True, detail=detail)


def cupy() -> Finding:
    if not importable("cupy"):
        detail = "not installed (extra: gpu); needed for --engine cuda"
        return Finding(name="cupy", present=False, optional=True, detail=detail)
    if num_devices() == 0:
        detail = "installed; not tried without an NVIDIA GPU"
        return Finding(name="cupy", present=False, optional=True, detail=detail)
    try:
        cupy = importlib.import_module("cupy")
        works = cupy.cuda.is_available()
    except ImportError as failure:
        return Finding(name="cupy", present=False, optional=True, detail=str(failure))
    detail = f"{cupy.__version__}" + ("" if works else ", which finds no GPU")
    return Finding(name="cupy", present=works, optional=True, detail=detail)


def kernels() -> Finding:
    if num_devices() == 0 or not importable("cupy"):
        detail = "compiled by CuPy on an NVIDIA GPU when an engine is built; not tried here"
        return Finding(name="kernels", present=False, optional=True, detail=detail)
    from model.cuda.source import PARTS, kernel_source

    cupy = importlib.import_module("cupy")
    options = ("--std=c++17", "-DOUT=1", "-DMAX_BOXES=300")
    try:
        for kernel in PARTS:
            cupy.RawModule(code=kernel_source(kernel), options=options).get_function(kernel)
    except (RuntimeError, cupy.cuda.compiler.CompileException) as failure:
        detail = f"do not compile here: {str(failure).splitlines()[0]}"
        return Finding(name="kernels", present=False, optional=True, detail=detail)
    detail = f"{', '.join(PARTS)}: compiled"
    return Finding(name="kernels", present=True, optional=True, detail=detail)


def nvdec() -> Finding:
    if num_devices() == 0:
        detail = "not tried without an NVIDIA GPU; the CPU decodes"
        return Finding(name="nvdec", present=False, optional=True, detail=detail)
    fault = hardware_fault()
    detail = "decodes H.264 on the GPU" if fault is None else f"{fault}; the CPU decodes"
    return Finding(name="nvdec", present=fault is None, optional=True, detail=detail)


def hardware_fault() -> str | None:
    """Decode a grey picture on the GPU; say what is in the way, if something is."""
    import av
    from av.codec.hwaccel import HWAccel

    try:
        wish = HWAccel("cuda", allow_software_fallback=False, is_hw_owned=True)
        decoder = av.CodecContext.create("h264", "r", hwaccel=wish)
        packets = (*grey_keyframe(), None)
        formats = {frame.format.name for packet in packets for frame in decoder.decode(packet)}
    except (OSError, RuntimeError, av.FFmpegError) as failure:
        return f"NVDEC cannot be had ({type(failure).__name__}: {failure})"
    # a decoder that fell back says nothing, its frames do
    return None if formats == {"cuda"} else f"NVDEC gave way to {', '.join(formats) or 'nothing'}"


def grey_keyframe() -> "list[av.Packet[av.VideoStream]]":
    """Packets of one grey picture in H.264, larger than the least that NVDEC takes."""
    import av

    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 256, 256, "yuv420p"
    encoder.time_base = Fraction(1, 30)
    picture = av.VideoFrame(256, 256, "yuv420p")
    for plane in picture.planes:
        plane.update(bytes([128]) * plane.buffer_size)
    return [*encoder.encode(picture), *encoder.encode(None)]


def tensorrt() -> Finding:
    present = importable("tensorrt") and importable("torch_tensorrt")
    detail = "installed" if present else "not installed (extra: tensorrt); needs an NVIDIA GPU"
    return Finding(name="tensorrt", present=present, optional=True, detail=detail)
