# SPDX-License-Identifier: Apache-2.0
"""What touches the service's own files is done with its rights: it may have put links there."""

import os
import pwd
from collections.abc import Callable
from typing import NoReturn

from pipeline.box.layout import USER
from pipeline.errors import UpdateFailed


def service_user() -> str | None:
    """The service's user where this process may become it, else None."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(USER).pw_name
    except KeyError:
        return None


def as_service(do: Callable[[], None]) -> None:
    """Do it in a child that has become the service's user; here, where it cannot be become.

    Raises:
        UpdateFailed: it failed in the child, with its reason.
    """
    user = service_user()
    if user is None:
        do()
        return
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _do_as(user, do, writer)
    os.close(writer)
    try:
        with os.fdopen(reader, errors="replace") as pipe:
            why = pipe.read()
    finally:  # what it does is over before anything else is begun
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise UpdateFailed(why or f"the part that runs as {user} ended with {code}")


def _do_as(user: str, do: Callable[[], None], told: int) -> NoReturn:
    """Become the user, do it, tell what went wrong, and end."""
    code = 1
    try:
        entry = pwd.getpwnam(user)
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
        do()
        code = 0
    except BaseException as fault:  # noqa: BLE001 - told to the one that waits
        os.write(told, (str(fault) or repr(fault)).encode())
    finally:
        os._exit(code)
