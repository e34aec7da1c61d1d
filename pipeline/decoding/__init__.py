# SPDX-License-Identifier: Apache-2.0
"""Sources to packets to frames; knows no queue."""
