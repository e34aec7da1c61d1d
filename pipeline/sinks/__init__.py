# SPDX-License-Identifier: Apache-2.0
"""Sinks: files that tracks and pictures end in."""
