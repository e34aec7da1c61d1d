# SPDX-License-Identifier: Apache-2.0
"""What a torch checkpoint's pickle would do, found out without doing any of it.

A pickle is a program for a stack machine. The one here runs the program on placeholders: it keeps
the names the program asks for and the storages it declares, and makes nothing. Only instructions
that `torch.save` writes are known to it.
"""

import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from model.errors import WeightsError

PROTOCOL: Final = 2
MAX_STEPS: Final = 4_000_000
"""Instructions; the largest published checkpoint has about half a million."""
MAX_TUPLE: Final = 4096
"""Values in a tuple and in those inside it; a few nested bytes could mean more than any memory."""


@dataclass(frozen=True, slots=True)
class Storage:
    """Numbers that a pickle says lie beside it."""

    kind: str
    """Name of the type, such as `torch.HalfStorage`."""
    key: str
    numel: int


@dataclass(frozen=True, slots=True)
class Scan:
    """What a pickle asks for."""

    names: frozenset[str]
    """Classes and functions, with their modules."""
    storages: frozenset[Storage]


def scan_pickle(path: Path, program: bytes) -> Scan:
    """Follow a pickle's instructions on placeholders; `path` is for errors.

    Raises:
        WeightsError: the pickle is damaged, or does what no checkpoint needs.
    """
    machine = _Machine(path)
    for step, (name, argument) in enumerate(_instructions(path, program)):
        if step == MAX_STEPS:
            raise WeightsError(f"{path}: its pickle has more than {MAX_STEPS:,} instructions")
        if name not in MOVES:
            raise WeightsError(
                f"{path}: its pickle uses {name}, which torch.save does not write; "
                "save the weights again with it"
            )
        try:
            MOVES[name](machine, argument)
        except LookupError:
            raise _damaged(path) from None
    return Scan(names=frozenset(machine.names), storages=frozenset(machine.storages))


def _instructions(path: Path, program: bytes) -> Iterator[tuple[str, Any]]:
    try:
        for opcode, argument, _ in pickletools.genops(program):
            yield opcode.name, argument
    except (ValueError, OverflowError, IndexError):
        raise _damaged(path) from None


def _damaged(path: Path) -> WeightsError:
    return WeightsError(f"{path}: damaged: its pickle cannot be followed")


@dataclass(frozen=True, slots=True)
class _Name:
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class _Tuple:
    items: tuple[object, ...]
    num_values: int
    """In it and in the tuples inside it, each as often as it is met."""


@dataclass(slots=True)
class _Machine:
    """Stack and memo; a value that does not matter is None."""

    path: Path
    stack: list[object] = field(default_factory=list)
    below: list[list[object]] = field(default_factory=list)
    """Stacks below the marks."""
    memo: dict[int, object] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    storages: set[Storage] = field(default_factory=set)

    def begin(self, protocol: int) -> None:
        if protocol != PROTOCOL:
            raise WeightsError(
                f"{self.path}: written in pickle protocol {protocol}; "
                f"save it again with torch's own, {PROTOCOL}"
            )

    def push(self, value: object) -> None:
        self.stack.append(value)

    def drop(self, count: int) -> None:
        """Take values away from above others."""
        for _ in range(count):
            self.stack.pop()
        _ = self.stack[-1]  # what is worked on must be there

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def to_mark(self) -> list[object]:
        """Return what lies above the last mark, and go below it."""
        above, self.stack = self.stack, self.below.pop()
        return above

    def name(self, text: str) -> None:
        """Note a class or function; the instruction has its module and its name."""
        full = ".".join(text.split(" ", 1))
        self.names.add(full)
        self.push(_Name(full))

    def join(self, items: list[object]) -> None:
        num_values = sum(item.num_values if isinstance(item, _Tuple) else 1 for item in items) + 1
        if num_values > MAX_TUPLE:
            raise WeightsError(
                f"{self.path}: its pickle has a tuple of more than {MAX_TUPLE} values"
            )
        self.push(_Tuple(tuple(items), num_values))

    def join_last(self, count: int) -> None:
        self.join([self.stack.pop() for _ in range(count)][::-1])

    def note_storage(self) -> None:
        """Note the storage that the last value describes: a tuple of five."""
        described = self.stack.pop()
        items = described.items if isinstance(described, _Tuple) else ()
        match items:
            case ("storage", _Name(kind), str(key), str(), int(numel)) if numel >= 0:
                self.storages.add(Storage(kind, key, numel))
                self.push(None)
            case _:
                raise _damaged(self.path)


Move = Callable[[_Machine, Any], None]


def _push_nothing(machine: _Machine, _: object) -> None:
    machine.push(None)


def _drop(count: int) -> Move:
    return lambda machine, _: machine.drop(count)


def _join(count: int) -> Move:
    return lambda machine, _: machine.join_last(count)


def _make(machine: _Machine, _: object) -> None:
    """Call or build something: a class and its arguments become one unknown value."""
    machine.drop(1)
    machine.stack[-1] = None


def _drop_to_mark(machine: _Machine, _: object) -> None:
    machine.to_mark()
    machine.drop(0)


def _remember(machine: _Machine, place: int) -> None:
    machine.memo[place] = machine.stack[-1]


def _recall(machine: _Machine, place: int) -> None:
    machine.push(machine.memo[place])


# fmt: off
MOVES: Final[dict[str, Move]] = {
    "PROTO": _Machine.begin,
    "STOP": _drop(0),
    "GLOBAL": _Machine.name,
    "NEWOBJ": _make,
    "REDUCE": _make,
    "BUILD": _drop(1),
    "BINPERSID": lambda machine, _: machine.note_storage(),
    "MARK": lambda machine, _: machine.mark(),
    "TUPLE": lambda machine, _: machine.join(machine.to_mark()),
    "EMPTY_TUPLE": _join(0), "TUPLE1": _join(1), "TUPLE2": _join(2), "TUPLE3": _join(3),
    "APPEND": _drop(1), "APPENDS": _drop_to_mark,
    "SETITEM": _drop(2), "SETITEMS": _drop_to_mark,
    "NONE": _push_nothing, "NEWTRUE": _push_nothing, "NEWFALSE": _push_nothing,
    "EMPTY_LIST": _push_nothing, "EMPTY_DICT": _push_nothing, "EMPTY_SET": _push_nothing,
    "BININT": _Machine.push, "BININT1": _Machine.push, "BININT2": _Machine.push,
    "LONG1": _Machine.push, "BINFLOAT": _Machine.push,
    "BINUNICODE": _Machine.push, "SHORT_BINSTRING": _Machine.push,
    "BINPUT": _remember, "LONG_BINPUT": _remember,
    "BINGET": _recall, "LONG_BINGET": _recall,
}
# fmt: on
"""What each instruction of a checkpoint does to the stack."""
