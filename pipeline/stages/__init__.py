# SPDX-License-Identifier: Apache-2.0
"""Stages: thin, one file each; a stage reads, calls a library, writes."""
