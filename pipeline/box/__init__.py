# SPDX-License-Identifier: Apache-2.0
"""The edge box: bundles that install without a network, and updates that undo themselves."""
