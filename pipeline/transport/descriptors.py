# SPDX-License-Identifier: Apache-2.0
"""Packets on a Unix socket with descriptors beside them."""

import array
import socket


def receive(line: socket.socket, most_bytes: int, flags: int = 0) -> tuple[bytes, list[int]]:
    """The next packet and its descriptors, which no child inherits; empty where the other end is.

    `socket.recv_fds` takes flags, but does not pass them on (Python 3.11).
    """
    descriptors = array.array("i")
    body, beside, _, _ = line.recvmsg(
        most_bytes, socket.CMSG_LEN(3 * descriptors.itemsize), flags | socket.MSG_CMSG_CLOEXEC
    )
    for level, kind, data in beside:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    return body, list(descriptors)
