# SPDX-License-Identifier: Apache-2.0
"""Keeping events and telling the world; `teller.py` is where to start reading."""
