# SPDX-License-Identifier: Apache-2.0
"""Engines: one contract, several ways to run a detector."""

from model.engines.build import build_engine
from model.engines.contract import Engine

__all__ = ["Engine", "build_engine"]
