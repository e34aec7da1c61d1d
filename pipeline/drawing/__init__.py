# SPDX-License-Identifier: Apache-2.0
"""Drawing: tracks on a picture."""
