# SPDX-License-Identifier: Apache-2.0
"""What this machine could do, what the pipeline makes of it, and where the rest goes."""
