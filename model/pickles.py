# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in torch's zip form, read without running anything they hold.

Such a file is a zip of one pickle and the numbers it refers to. The zip's entries are checked, the
pickle is followed on placeholders (`model/pickle_scan.py`), and every class or function it asks
for must be on a list. What remains is written anew, so that torch sees nothing else, and loaded
with `weights_only`, which itself makes only tensors and containers; in place of every class of
another project stands `Opaque`, which keeps what it is given and does nothing.
"""

import io
import pickle
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch

from model.errors import WeightsError, shown, unreadable
from model.pickle_scan import Scan, scan_pickle

MAX_FILE_BYTES: Final = 4 * 2**30
"""Of a checkpoint; the largest published one, with its optimizer's state, has about a sixth."""
MAX_PICKLE_BYTES: Final = 16 * 2**20
MAX_ENTRIES: Final = 65_536
MAX_PARTS: Final = 200_000
"""Modules and tensors in a network, and in modules it holds several times; the largest published
one has about ten thousand."""
MAX_MODULE_DEPTH: Final = 32
MAX_NAME_LETTERS: Final = 200

ITEM_BYTES: Final = {
    "torch.HalfStorage": 2,
    "torch.BFloat16Storage": 2,
    "torch.FloatStorage": 4,
    "torch.DoubleStorage": 8,
    "torch.CharStorage": 1,
    "torch.ByteStorage": 1,
    "torch.BoolStorage": 1,
    "torch.ShortStorage": 2,
    "torch.IntStorage": 4,
    "torch.LongStorage": 8,
}
"""Kinds of numbers a checkpoint may hold, and the bytes of each."""
MADE: Final = frozenset(
    {*ITEM_BYTES, "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter",
     "collections.OrderedDict", "__builtin__.set", "builtins.set"}
)  # fmt: skip
"""What torch really makes: tensors and containers."""
STOOD_FOR: Final = frozenset(
    {"numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct",
     "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
     "numpy.ndarray", "numpy.dtype", "_codecs.encode",
     "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib._local.PosixPath",
     "types.SimpleNamespace", "torch.device", "torch.Size"}
)  # fmt: skip
STOOD_FOR_MODULES: Final = ("models.", "ultralytics.", "torch.nn.modules.")
"""What `Opaque` stands for: names, and modules whose every name may occur."""

NOT_A_CHECKPOINT: Final = {
    "constants.pkl": "a TorchScript export, which holds a program",
    "archive_format": "a torch.export archive, which holds a program",
}
PARTS: Final = re.compile(
    r"data\.pkl|data/[0-9]+|version|byteorder|\.format_version|\.storage_alignment"
    r"|\.data/serialization_id"
)
"""What torch puts into a checkpoint."""
CALL_FAULTS: Final = (
    pickle.UnpicklingError, RuntimeError, ValueError, TypeError, LookupError, AttributeError,
    AssertionError, EOFError, OverflowError, MemoryError,
)  # fmt: skip
"""What torch raises about a pickle that does not make sense."""
ZIP_FAULTS: Final = (
    zipfile.BadZipFile, RuntimeError, ValueError, EOFError, LookupError,
    OverflowError,
)  # fmt: skip


class Opaque:
    """Stands for an object of another project: holds what the pickle gave it."""

    def __new__(cls, *_: object) -> "Opaque":
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        self.state: dict[Any, Any] = {}

    def __setstate__(self, state: object) -> None:
        self.state = state if isinstance(state, dict) else {}

    def attribute(self, name: str) -> Any:
        """Return what the object calls `name`, or None."""
        return getattr(self, "state", {}).get(name)


def read_pickle(path: Path) -> Any:
    """Return what a checkpoint holds: containers, tensors, and `Opaque` for all else.

    Raises:
        WeightsError: it is damaged, no checkpoint, or asks for what no checkpoint needs.
    """
    with _opened(path) as archive:
        root = _root(path, archive.namelist())
        _check_entries(path, archive, root)
        program = archive.read(f"{root}data.pkl")
        scan = scan_pickle(path, program)
        _check_names(path, scan)
        _check_storages(path, scan, archive, root)
        clean = _rewritten(archive, root, program, scan)
    return _load(path, clean, scan)


def module_tensors(path: Path, module: Opaque) -> dict[str, torch.Tensor]:
    """Return the parameters and buffers of a module and all inside it, by their full names."""
    tensors: dict[str, torch.Tensor] = {}
    modules: list[tuple[str, Opaque]] = [("", module)]
    num_parts = 0
    while modules:
        prefix, parent = modules.pop()
        parts = _parts(path, parent)
        num_parts += len(parts) + 1
        if num_parts > MAX_PARTS or prefix.count(".") > MAX_MODULE_DEPTH:
            raise WeightsError(f"{path}: its modules are nested without end")
        for name, part in parts:
            if isinstance(part, torch.Tensor):
                tensors[f"{prefix}{name}"] = part
            elif isinstance(part, Opaque):
                modules.append((f"{prefix}{name}.", part))
    return tensors


def _parts(path: Path, module: Opaque) -> list[tuple[str, Any]]:
    """Return what a module saves: its tensors and its modules."""
    fleeting = module.attribute("_non_persistent_buffers_set")
    left_out = fleeting if isinstance(fleeting, set) else set()
    groups = [module.attribute(group) for group in ("_parameters", "_buffers", "_modules")]
    parts = [item for group in groups if isinstance(group, dict) for item in group.items()]
    if any(not isinstance(name, str) or len(name) > MAX_NAME_LETTERS for name, _ in parts):
        raise WeightsError(f"{path}: damaged: a part of its network has no name that can be")
    return [(name, part) for name, part in parts if name not in left_out]


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open the zip; what is wrong with it, now or later, becomes one line."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise WeightsError(f"{path}: larger than {MAX_FILE_BYTES // 2**30} GiB")
        with zipfile.ZipFile(path) as archive:
            yield archive
    except OSError as failure:
        raise unreadable(path, failure) from None
    except ZIP_FAULTS:
        raise WeightsError(f"{path}: damaged or cut short: not a whole zip file") from None


def _root(path: Path, names: list[str]) -> str:
    """Return the folder a checkpoint's entries lie in."""
    root = names[0].partition("/")[0] + "/" if names else ""
    for part, what in NOT_A_CHECKPOINT.items():
        if f"{root}{part}" in names:
            raise WeightsError(f"{path}: {what}; give the checkpoint it was made from")
    if f"{root}data.pkl" not in names:
        raise WeightsError(f"{path}: a zip file, but no checkpoint: it lacks data.pkl")
    return root


def _check_entries(path: Path, archive: zipfile.ZipFile, root: str) -> None:
    """Check that the zip holds what torch puts there, and as torch does."""
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise WeightsError(f"{path}: its zip has {len(entries)} entries, more than {MAX_ENTRIES}")
    if len({entry.filename for entry in entries}) < len(entries):
        raise WeightsError(f"{path}: its zip has several entries of one name")
    for entry in entries:
        if not entry.filename.startswith(root) or not PARTS.fullmatch(entry.filename, len(root)):
            raise WeightsError(f"{path}: it holds {shown(entry.filename)}, as no checkpoint does")
        stored = entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & 1
        if not stored or entry.compress_size != entry.file_size:
            raise WeightsError(f"{path}: {shown(entry.filename)} is packed, as torch packs none")
    _check_sizes(path, archive, root)


def _check_sizes(path: Path, archive: zipfile.ZipFile, root: str) -> None:
    declared = sum(entry.file_size for entry in archive.infolist())
    actual = path.stat().st_size
    if declared > actual:
        raise WeightsError(f"{path}: its entries claim {declared} bytes, the file has {actual}")
    if archive.getinfo(f"{root}data.pkl").file_size > MAX_PICKLE_BYTES:
        raise WeightsError(f"{path}: its pickle is larger than {MAX_PICKLE_BYTES // 2**20} MiB")
    order = f"{root}byteorder"
    if order in archive.namelist() and archive.read(order) != b"little":
        raise WeightsError(f"{path}: saved with its bytes in another order than this one reads")


def _check_names(path: Path, scan: Scan) -> None:
    unknown = sorted(name for name in scan.names if not _is_known(name))
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        named = ", ".join(shown(name) for name in unknown[:3])
        raise WeightsError(
            f"{path}: refused unopened: it asks for {named}{more}; if you trust the file, save its "
            "state_dict() alone"
        )


def _is_known(name: str) -> bool:
    inside = name.startswith(STOOD_FOR_MODULES) and re.fullmatch(r"[\w.]+", name)
    return name in MADE or name in STOOD_FOR or bool(inside)


def _check_storages(path: Path, scan: Scan, archive: zipfile.ZipFile, root: str) -> None:
    """Check that what the pickle says about its numbers is so: torch reads without looking."""
    sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    for storage in scan.storages:
        declared = storage.numel * ITEM_BYTES.get(storage.kind, 0)
        actual = sizes.get(f"{root}data/{storage.key}")
        if storage.kind not in ITEM_BYTES or declared != actual:
            key = shown(storage.key)
            raise WeightsError(
                f"{path}: damaged: data/{key} should have {declared} bytes, it has {actual or 0}"
            )


def _rewritten(archive: zipfile.ZipFile, root: str, program: bytes, scan: Scan) -> io.BytesIO:
    """Write a zip of what was looked at and nothing else."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as clean:
        clean.writestr("archive/version", "3\n")
        clean.writestr("archive/data.pkl", program)
        for key in sorted({storage.key for storage in scan.storages}):
            clean.writestr(f"archive/data/{key}", archive.read(f"{root}data/{key}"))
    content.seek(0)
    return content


def _load(path: Path, content: io.BytesIO, scan: Scan) -> Any:
    opaque: list[Any] = [(Opaque, name) for name in scan.names - MADE]
    try:
        with torch.serialization.safe_globals(opaque):
            return torch.load(content, map_location="cpu", weights_only=True)
    except CALL_FAULTS:
        raise WeightsError(f"{path}: damaged: its pickle does not make sense to torch") from None
