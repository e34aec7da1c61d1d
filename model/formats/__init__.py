# SPDX-License-Identifier: Apache-2.0
"""Formats of artefacts: one file each, imported only when it is asked for."""

from model.formats.graph import Graph, make_graph

__all__ = ["Graph", "make_graph"]
