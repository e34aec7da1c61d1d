# SPDX-License-Identifier: Apache-2.0
"""Links with credits, slots in shared memory, and the line to the supervisor."""
