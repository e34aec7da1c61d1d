# SPDX-License-Identifier: Apache-2.0
"""Tracking: detections of one stream become identities over time."""
