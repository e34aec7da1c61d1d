# SPDX-License-Identifier: Apache-2.0
"""The data path as data: links, stages, and the graph of trunks with branches.

Stages of a branch exist once per stream, stages of the trunk once per accelerator, and each branch
is at one trunk. A link from a branch into the trunk collects the streams there at one reader; a
link out of the trunk goes to the branch of the message's stream. Fan-in and fan-out exist nowhere
else.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

from pipeline.errors import GraphError
from pipeline.messages import AnyMessage


class Worker(Protocol):
    """What runs inside a stage: one call that lasts as long as the stage."""

    def run(self, ports: Any) -> tuple[str, ...]:
        """Read, work, write, until there is nothing left; returns the outputs it wrote."""
        ...


@dataclass(frozen=True, slots=True)
class Link:
    """A queue with a stated depth."""

    name: str
    carries: type[AnyMessage]
    depth: int
    """Messages each writer may have waiting at the reader."""
    window: int | None = None
    """Messages the writer may have unacknowledged; None for no limit beside the credits."""
    resend: bool = False
    """Whether slots are kept until the message is acknowledged, to be sent again."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A worker between links.

    `make` is called where the stage runs, with its errand: what is only known when it begins.
    """

    name: str
    group: str
    """Stages of one group share a process, where stages run in processes."""
    reads: tuple[Link, ...]
    writes: tuple[Link, ...]
    make: Callable[[Any], Worker]


@dataclass(frozen=True, slots=True)
class Graph:
    """The stages of each trunk and the stages every stream has of its own."""

    trunk: tuple[Stage, ...]
    branch: tuple[Stage, ...]
    num_trunks: int = 1
    hosted: tuple[str, ...] = ()
    """Groups of the branch that work in the process of their trunk."""

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise GraphError(f"two stages have one name: {', '.join(names)}")
        links = [link.name for link in self.links]
        if len(set(links)) != len(links):
            raise GraphError(f"two links have one name: {', '.join(links)}")
        for link in self.links:
            writers = [stage.name for stage in self.stages if link in stage.writes]
            if len(writers) != 1:
                raise GraphError(f"link {link.name} needs one writer, has {writers or 'none'}")
            if not self.readers(link):
                raise GraphError(f"link {link.name} has no reader")
            if link.depth < 1 or (link.window is not None and link.window < 1):
                raise GraphError(f"link {link.name} needs a depth and a window of 1 or more")

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All stages, trunk first."""
        return (*self.trunk, *self.branch)

    @property
    def links(self) -> tuple[Link, ...]:
        """All links, each once."""
        ends = chain.from_iterable((*stage.writes, *stage.reads) for stage in self.stages)
        return tuple(dict.fromkeys(ends))

    def groups(self, stages: tuple[Stage, ...]) -> tuple[str, ...]:
        """The groups of these stages, each once, readers before their writers."""
        return tuple(dict.fromkeys(stage.group for stage in reversed(stages)))

    def group(self, name: str) -> tuple[Stage, ...]:
        """The stages of a group, readers before their writers."""
        return tuple(stage for stage in reversed(self.stages) if stage.group == name)

    def writer(self, link: Link) -> Stage:
        """The one stage that writes a link."""
        return next(stage for stage in self.stages if link in stage.writes)

    def readers(self, link: Link) -> tuple[Stage, ...]:
        """The stages that read a link, in the order they are listed."""
        return tuple(stage for stage in self.stages if link in stage.reads)

    def __str__(self) -> str:
        """One line a stage: `tracked[16] -> annotate -> drawn[4]`."""
        lines = []
        trunk = "trunk" if self.num_trunks == 1 else f"each of {self.num_trunks} trunks"
        for title, stages in (("each stream", self.branch), (trunk, self.trunk)):
            lines.append(f"{title}:")
            for stage in stages:
                ends = [_ends(stage.reads), stage.name, _ends(stage.writes)]
                where = "  (in the trunk's process)" if stage.group in self.hosted else ""
                lines.append("  " + " -> ".join(end for end in ends if end) + where)
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the links of one run meet; the scheme decides the placement and nothing else does."""

    base: str
    """For example `inproc://5f3a`, or `ipc://@` and a short name: 107 bytes are all there are."""

    def link(self, graph: Graph, link: Link, reader: Stage, stream: str, trunk: int = 0) -> str:
        """The reader's address; readers in a branch have one each, and those in a trunk."""
        end = f"{self.base}/{link.name}.{reader.name}"
        return f"{end}.{_short(stream)}" if reader in graph.branch else numbered(end, trunk)


def numbered(name: str, trunk: int) -> str:
    """What a name is in one of the trunks; in the first it is itself."""
    return f"{name}#{trunk}" if trunk else name


def _short(stream: str) -> str:
    """A name of 16 characters in the place of one of any length."""
    return hashlib.blake2b(stream.encode(), digest_size=8).hexdigest()


def _ends(links: tuple[Link, ...]) -> str:
    return ", ".join(f"{link.name}[{link.depth}]" for link in links)
