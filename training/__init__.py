# SPDX-License-Identifier: Apache-2.0
"""Training of the detector (PGI); empty until training lands."""
