# SPDX-License-Identifier: Apache-2.0
"""The systemd unit as data, and its filter of system calls put over a command.

python -m tests.deploy.unit COMMAND...     runs it with the calls the unit allows, and no others
"""

import ctypes
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Final

UNIT: Final = Path(__file__).parents[2] / "deploy" / "sightline.service"

_EPERM_ACTION: Final = 0x00050000 | 1
_ALLOW: Final = 0x7FFF0000
_UNKNOWN_CALL: Final = -1
_PR_SET_NO_NEW_PRIVS: Final = 38


def read_unit(path: Path = UNIT) -> dict[str, list[str]]:
    """Its settings in the order they stand; one that stands twice has two values."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for line in path.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found[name].append(value)
    return dict(found)


def members(names: Iterable[str]) -> set[str]:
    """System calls by their names, with those that `@group` stands for."""
    calls = {name for name in names if not name.startswith("@")}
    groups = [name for name in names if name.startswith("@")]
    for group in groups:
        listed = subprocess.run(
            ["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True
        )
        inside = [line.strip() for line in listed.stdout.splitlines()[1:]]
        calls |= members([name for name in inside if name and not name.startswith("#")])
    return calls


def allowed_calls() -> set[str]:
    """The calls that the unit lets through."""
    allowed: set[str] = set()
    for value in read_unit()["SystemCallFilter"]:
        if value.startswith("~"):
            allowed -= members(value[1:].split())
        else:
            allowed |= members(value.split())
    return allowed


def confine() -> None:
    """Let this process and those it starts make only the calls that the unit allows."""
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_EPERM_ACTION)))
    for name in allowed_calls():
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number != _UNKNOWN_CALL:
            library.seccomp_rule_add(rules, ctypes.c_uint32(_ALLOW), number, 0)
    ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if library.seccomp_load(rules) != 0:
        raise OSError("the filter was not taken")


if __name__ == "__main__":
    confine()
    os.execvp(sys.argv[1], sys.argv[1:])
