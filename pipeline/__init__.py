# SPDX-License-Identifier: Apache-2.0
"""The path of a frame: sources in, tracks, events and pictures out."""
