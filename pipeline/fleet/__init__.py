# SPDX-License-Identifier: Apache-2.0
"""The collector of a fleet; `collector.py` is where to start reading."""
