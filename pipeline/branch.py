# SPDX-License-Identifier: Apache-2.0
"""What stages are told when they begin: all that is not the same for the whole run."""

from dataclasses import dataclass

from pipeline.decoding.inputs import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """One stream from its begin to its end.

    A camera that is changed, or comes again, gets another branch, which no message of the old one
    can be taken for.
    """

    stream: str
    """What its messages, pools and workers are called; no other branch ever was."""
    source: Source
    """Where it comes from, and what its user calls it."""
    row: int
    """Of the table of counters."""
    trunk: int = 0
    """The number of the trunk that looks at its frames; settled when it begins."""
