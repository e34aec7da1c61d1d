# SPDX-License-Identifier: Apache-2.0
"""A disk with a volatile cache, whose power can be cut: one file under FUSE, for a loop device.

    python tests/benchmarks/losing_disk.py MOUNTPOINT IMAGE

Serves IMAGE, kept in memory, as the file MOUNTPOINT. Writes are pending until the next flush, as
in the cache of a disk. A line `MODE AFTER SEED PATH` on stdin orders a cut, at once or AFTER so
many more writes; a line `now` has the one that was ordered come at once. What it leaves is written
to PATH: everything flushed and, of the pending writes, by MODE, `all`, `none`, or `some`, any
sectors, as if written in any order. The answer is the time of the cut and the number of sectors
pending and kept. FUSE's protocol is spoken here as far as a loop device needs it; needs root.
"""

import ctypes
import errno
import os
import random
import select
import signal
import struct
import sys
import time
from pathlib import Path
from typing import Final

SECTOR: Final = 512
_MAX_WRITE: Final = 1 << 17
_HEADER: Final = struct.Struct("<IIQQIIIHH")
_RANGE: Final = struct.Struct("<QQIIQII")
_WITHOUT_ANSWER: Final = (2, 36, 42)
_DIRECT_IO, _MAX_PAGES = 1, 1 << 22


class LosingDisk:
    """Sectors that are safe, and those that a cut may take."""

    def __init__(self, content: bytes) -> None:
        self._now, self._safe = bytearray(content), bytearray(content)
        self._pending: list[tuple[int, int, bytes]] = []

    def __len__(self) -> int:
        return len(self._now)

    def read(self, start: int, num_bytes: int) -> bytes:
        return bytes(self._now[start : start + num_bytes])

    def write(self, start: int, content: bytes) -> None:
        self._now[start : start + len(content)] = content
        self._pending.append((start, start + len(content), content))

    def flush(self) -> None:
        for start, end, content in self._pending:
            self._safe[start:end] = content
        self._pending.clear()

    def after_a_cut(self, mode: str, chance: random.Random) -> tuple[bytearray, int, int]:
        """What lies on it then, and how many sectors were pending and kept."""
        left = bytearray(self._safe)
        num_pending = num_kept = 0
        for start, end, content in self._pending:
            whole = chance.random() < 0.5  # most writes come or go as one, some are torn
            for at in range(start, end, SECTOR):
                num_pending += 1
                if mode == "none" or (mode == "some" and chance.random() > (0.9 if whole else 0.1)):
                    continue
                num_kept += 1
                stop = min(at + SECTOR, end)
                left[at:stop] = content[at - start : stop - start]
        return left, num_pending, num_kept


class Server:
    """Answers the kernel, and cuts the power."""

    def __init__(self, mountpoint: Path, disk: LosingDisk) -> None:
        self._disk = disk
        self._order: list[str] | None = None
        self._writes_left = 0
        self._fuse = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self._fuse},rootmode=100600,user_id=0,group_id=0"
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"losing", os.fsencode(mountpoint), b"fuse", 0, options.encode()):
            raise OSError(ctypes.get_errno(), "cannot mount")

    def run(self) -> None:
        """Serve until it is unmounted, or whoever gives orders has gone."""
        while True:
            ready, _, _ = select.select([self._fuse, sys.stdin.fileno()], [], [])
            if self._fuse in ready:
                try:
                    self._serve(os.read(self._fuse, _MAX_WRITE + 65_536))
                except OSError as failure:
                    if failure.errno != errno.ENOENT:  # a request that was taken back
                        return
            elif not (orders := os.read(sys.stdin.fileno(), 4096)):
                return
            else:
                for order in orders.decode().splitlines():
                    self._take(order)

    def _take(self, order: str) -> None:
        if order != "now":
            mode, after, seed, path = order.split()
            self._order, self._writes_left = [mode, seed, path], int(after)
        if self._order is not None and (order == "now" or not self._writes_left):
            self._cut()

    def _cut(self) -> None:
        assert self._order is not None
        (mode, seed, path), self._order = self._order, None
        at_s = time.time()
        if os.fork():  # the disk goes on while the child, which has it as it was, writes it down
            return
        left, num_pending, num_kept = self._disk.after_a_cut(mode, random.Random(seed))
        Path(path).write_bytes(left)
        print(at_s, num_pending, num_kept, flush=True)
        os._exit(0)

    def _serve(self, request: bytes) -> None:
        _, code, unique, *_ = _HEADER.unpack_from(request)
        if code in _WITHOUT_ANSWER:
            return
        work = self._ANSWERS.get(code)
        failure = 0 if work else -errno.ENOSYS
        answer = work(self, request[_HEADER.size :]) if work else b""
        os.write(self._fuse, struct.pack("<IiQ", 16 + len(answer), failure, unique) + answer)

    def _init(self, body: bytes) -> bytes:
        _, _, readahead, flags = struct.unpack_from("<IIII", body)
        head = struct.pack("<IIII", 7, 31, readahead, flags & _MAX_PAGES)
        return (
            head + struct.pack("<HHIIHH", 12, 12, _MAX_WRITE, 1, _MAX_WRITE // 4096, 0) + bytes(32)
        )

    def _attributes(self, _: bytes) -> bytes:
        size = len(self._disk)
        numbers = (1, size, size // SECTOR, 0, 0, 0)
        rest = (0, 0, 0, 0o100600, 1, 0, 0, 0, 4096, 0)
        return struct.pack("<QII6Q10I", 60, 0, 0, *numbers, *rest)

    def _open(self, _: bytes) -> bytes:
        return struct.pack("<QII", 0, _DIRECT_IO, 0)

    def _read(self, body: bytes) -> bytes:
        _, start, num_bytes, *_ = _RANGE.unpack_from(body)
        return self._disk.read(start, num_bytes)

    def _write(self, body: bytes) -> bytes:
        _, start, num_bytes, *_ = _RANGE.unpack_from(body)
        self._disk.write(start, body[_RANGE.size : _RANGE.size + num_bytes])
        self._writes_left -= 1
        if self._order is not None and self._writes_left <= 0:
            self._cut()
        return struct.pack("<II", num_bytes, 0)

    def _flush(self, _: bytes) -> bytes:
        self._disk.flush()
        return b""

    def _nothing(self, _: bytes) -> bytes:
        return b""

    _ANSWERS: Final = {
        3: _attributes,
        4: _attributes,  # set: size and times stay as they are
        14: _open,
        15: _read,
        16: _write,
        18: _nothing,  # release
        20: _flush,  # fsync
        25: _nothing,  # close
        26: _init,
    }
    """By FUSE's numbers."""


def main() -> None:
    """Serve one image."""
    mountpoint, image = Path(sys.argv[1]), Path(sys.argv[2])
    server = Server(mountpoint, LosingDisk(image.read_bytes()))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print("ready", flush=True)
    server.run()


if __name__ == "__main__":
    main()
