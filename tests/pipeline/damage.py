# SPDX-License-Identifier: Apache-2.0
"""Ways in which files get damaged, each decided by a seed."""

import random
from collections.abc import Callable
from typing import Final

Damage = Callable[[bytes, random.Random], bytes]

_HEADER_BYTES: Final = 256
_BLOCK_BYTES: Final = (16, 2048)


def flipped_bits(data: bytes, dice: random.Random) -> bytes:
    """Single bits turned over, anywhere: bad memory, a bad line."""
    damaged = bytearray(data)
    for _ in range(dice.choice((1, 4, 20, 200))):
        damaged[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return bytes(damaged)


def cut_off(data: bytes, dice: random.Random) -> bytes:
    """The end is missing: a copy that broke off."""
    return data[: dice.randrange(1, len(data))]


def zeroed_blocks(data: bytes, dice: random.Random) -> bytes:
    """Blocks that were never written: a crash, a bad sector."""
    damaged = bytearray(data)
    for _ in range(dice.choice((1, 3, 10))):
        start, size = _block(data, dice)
        damaged[start : start + size] = bytes(size)
    return bytes(damaged)


def swapped_blocks(data: bytes, dice: random.Random) -> bytes:
    """Blocks in each other's place: a file system mended wrongly."""
    damaged = bytearray(data)
    for _ in range(dice.choice((1, 3, 10))):
        (first, size), (second, _) = _block(data, dice), _block(data, dice)
        second = min(second, len(data) - size)
        here, there = damaged[first : first + size], damaged[second : second + size]
        damaged[first : first + size], damaged[second : second + size] = there, here
    return bytes(damaged)


def damaged_header(data: bytes, dice: random.Random) -> bytes:
    """Random bytes among the first ones, and near the end where an MP4 keeps its index."""
    damaged = bytearray(data)
    for _ in range(dice.choice((1, 5, 30))):
        place = dice.randrange(min(_HEADER_BYTES, len(data)))
        if dice.random() < 0.5:
            place = -1 - dice.randrange(min(4 * _HEADER_BYTES, len(data)))
        damaged[place] = dice.randrange(256)
    return bytes(damaged)


def inserted_garbage(data: bytes, dice: random.Random) -> bytes:
    """Bytes that do not belong here, so that all that follows lies elsewhere than it should."""
    place, size = dice.randrange(len(data)), dice.randint(*_BLOCK_BYTES)
    return data[:place] + dice.randbytes(size) + data[place:]


DAMAGES: Final[dict[str, Damage]] = {
    "flipped-bits": flipped_bits,
    "cut-off": cut_off,
    "zeroed-blocks": zeroed_blocks,
    "swapped-blocks": swapped_blocks,
    "damaged-header": damaged_header,
    "inserted-garbage": inserted_garbage,
}


def damaged_copy(data: bytes, kind: str, seed: int) -> bytes:
    """A copy with damage of one kind; the same seed gives the same damage."""
    return DAMAGES[kind](data, random.Random(f"{kind} {seed}"))


def _block(data: bytes, dice: random.Random) -> tuple[int, int]:
    """Where a block begins and how long it is."""
    size = min(dice.randint(*_BLOCK_BYTES), len(data) // 2)
    return dice.randrange(len(data) - size), size
