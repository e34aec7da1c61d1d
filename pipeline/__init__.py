# SPDX-License-Identifier: Apache-2.0
"""The path of a frame: sources in, tracks, events and pictures out."""

from pipeline.api import FrameResult, run

__all__ = ["FrameResult", "run"]
