# SPDX-License-Identifier: Apache-2.0
"""Training of the detector, guided by auxiliary branches (PGI)."""
