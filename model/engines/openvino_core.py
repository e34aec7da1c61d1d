# SPDX-License-Identifier: Apache-2.0
"""OpenVINO's core: one for the life of a process.

On processors with AMX its CPU plugin gives the thread that loads it a stack for signals, and unmaps
that again when the last that uses the plugin is gone, whatever stack the thread goes by then. Two
cores that end in another order than the opposite of their beginning leave the thread with a stack
that is not there, and the next signal it handles, a Ctrl-C say, ends the process. One that is kept
never takes it away.
"""

from functools import cache

import openvino


@cache
def get_core() -> openvino.Core:
    """Return the core; any thread may use it."""
    return openvino.Core()
