# SPDX-License-Identifier: Apache-2.0
"""Runs one GStreamer pipeline to its end, by GStreamer's Python binding.

A program of its own, called by its path: the Python that has the binding is often the system's,
which knows nothing of this package. What to run comes as JSON over stdin, where nobody else on the
machine can read the passwords in it; what is wrong goes to stderr, in the words of gst-launch-1.0.
"""

import json
import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402 - the version comes first


def main() -> int:
    """Run what stdin says."""
    order = json.load(sys.stdin)
    Gst.init(None)
    try:
        pipeline = Gst.parse_launch(order["description"])
    except GLib.Error as wrong:
        return _complain(f"WARNING: erroneous pipeline: {wrong.message}")
    for login in order["logins"]:
        element = pipeline.get_by_name(login["element"])
        element.set_property("user-id", login["user"])
        element.set_property("user-pw", login["password"])
    pipeline.set_state(Gst.State.PLAYING)
    ends = Gst.MessageType.ERROR | Gst.MessageType.EOS
    message = pipeline.get_bus().timed_pop_filtered(Gst.CLOCK_TIME_NONE, ends)
    status = 0
    if message.type == Gst.MessageType.ERROR:
        error, _ = message.parse_error()
        refused = error.matches(Gst.ResourceError.quark(), Gst.ResourceError.NOT_AUTHORIZED)
        status = _complain(f"ERROR: from element {message.src.get_name()}: {error.message}")
        if refused:
            _complain("Unauthorized")
    pipeline.set_state(Gst.State.NULL)
    return status


def _complain(text: str) -> int:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - its parent reads it
    return 1


if __name__ == "__main__":
    sys.exit(main())
