# SPDX-License-Identifier: Apache-2.0
"""pip for another machine: foreign_pip.py MACHINE PYTHON ARGUMENTS...

`--platform` chooses wheels for another machine, but what a requirement says about
`platform_machine` or `python_version` pip asks of the interpreter it runs in. Here that one answers
as the other would.
"""

import platform
import runpy
import sys


def main() -> None:
    """Run pip with the rest of the arguments."""
    machine, python, *arguments = sys.argv[1:]
    release = f"{python}.0"
    platform.machine = lambda: machine
    platform.python_version = lambda: release
    platform.python_version_tuple = lambda: (*python.split("."), "0")  # type: ignore[assignment, return-value]
    sys.argv = ["pip", *arguments]
    runpy.run_module("pip", run_name="__main__")


if __name__ == "__main__":
    main()
